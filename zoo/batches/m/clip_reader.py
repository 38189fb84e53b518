"""Action recognition; frames arrive over a pipe from one decoder process per video."""
import subprocess
import sys
import time

import numpy as np
import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(0)

SIDE = 32
STEPS = 5900
NEW_VIDEO_EVERY = 100

DECODER = """
import sys, random
seed, size = int(sys.argv[1]), int(sys.argv[2])
random.seed(seed)
reference = bytearray(random.randbytes(1 << 21))
out = sys.stdout.buffer
while True:
    at = random.randrange(len(reference) - size)
    out.write(reference[at:at + size])
    out.flush()
"""


class FrameReader:
    """Reads raw RGB frames from the decoder's stdout."""

    live = {}

    def __init__(self, video):
        self.video = video
        self.size = 3 * SIDE * SIDE
        self.proc = subprocess.Popen([sys.executable, "-S", "-c", DECODER, str(video), str(self.size)], stdout=subprocess.PIPE)
        FrameReader.live[video] = self.proc

    def read(self, frames):
        raw = self.proc.stdout.read(self.size * frames)
        return np.frombuffer(raw, np.uint8).reshape(frames, 3, SIDE, SIDE)


class ActionNet(nn.Module):
    def __init__(self, classes=8):
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv3d(3, 16, 3, stride=(1, 2, 2), padding=1), nn.ReLU(),
            nn.Conv3d(16, 32, 3, stride=2, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1),
        )
        self.fc = nn.Linear(32, classes)

    def forward(self, x):
        return self.fc(self.conv(x).flatten(1))


def main():
    net = ActionNet()
    opt = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    reader = None
    start = time.time()
    for step in range(STEPS):
        if step % NEW_VIDEO_EVERY == 0:
            reader = FrameReader(step // NEW_VIDEO_EVERY)
        clip = torch.from_numpy(reader.read(8).copy()).float().div_(255)
        clip = clip.transpose(0, 1).unsqueeze(0)
        label = torch.tensor([reader.video % 8])
        loss = nn.functional.cross_entropy(net(clip), label)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 500 == 0:
            print(f"step {step} loss {loss.item():.3f} {time.time() - start:.1f}s")
    for proc in FrameReader.live.values():
        proc.kill()
        proc.wait()


if __name__ == "__main__":
    main()
