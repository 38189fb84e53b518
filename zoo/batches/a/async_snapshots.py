import os
import tempfile
import threading

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(4)
STEPS, SAVE_EVERY = 164, 4


class SnapshotWriter(threading.Thread):
    """Writes one snapshot next to the training; a failed upload can be retried through `again`."""

    def __init__(self, state, path):
        super().__init__(daemon=True)
        self.state = state
        self.path = path
        self.again = threading.Event()

    def run(self):
        while True:
            torch.save(self.state, self.path + ".part")
            os.replace(self.path + ".part", self.path)
            self.again.wait()
            self.again.clear()


def checkpoint(model, directory, step):
    state = {key: value.detach().clone() for key, value in model.state_dict().items()}
    SnapshotWriter(state, os.path.join(directory, f"slot{step // SAVE_EVERY % 3}.pt")).start()


def build():
    layers, width = [], 256
    for _ in range(8):
        layers += [nn.Linear(width, width), nn.LayerNorm(width), nn.GELU()]
    return nn.Sequential(*layers, nn.Linear(width, 32))


def main():
    model = build()
    print("parameters", sum(p.numel() for p in model.parameters()), flush=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)
    with tempfile.TemporaryDirectory() as directory:
        for step in range(1, STEPS + 1):
            optimizer.zero_grad()
            for _ in range(4):
                x = torch.randn(512, 256)
                target = torch.randint(0, 32, (512,))
                (nn.functional.cross_entropy(model(x), target) / 4).backward()
            optimizer.step()
            if step % SAVE_EVERY == 0:
                checkpoint(model, directory, step)
            if step % 20 == 0:
                print("step", step, flush=True)
        threading.Event().wait(0.3)
        print("finished", STEPS, flush=True)


if __name__ == "__main__":
    main()
