"""Voice activity detection trained on windows and watched on a never-ending stream."""
import time

import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(0)

STEPS = 2200
FRAMES = 24
BANDS = 40


class VAD(nn.Module):
    def __init__(self, hidden=96):
        super().__init__()
        self.inp = nn.Linear(BANDS, hidden)
        self.cell = nn.GRUCell(hidden, hidden)
        self.out = nn.Linear(hidden, 1)

    def step(self, frame, h):
        return self.cell(torch.relu(self.inp(frame)), h)

    def forward(self, frames):
        h = frames.new_zeros(frames.shape[0], self.cell.hidden_size)
        logits = []
        for t in range(frames.shape[1]):
            h = self.step(frames[:, t], h)
            logits.append(self.out(h))
        return torch.cat(logits, 1)


class StreamMonitor:
    """Follows a live stream with the current weights; its state spans the training."""

    def __init__(self, model, channels=8):
        self.model = model
        self.h = torch.zeros(channels, model.cell.hidden_size)
        self.channels = channels

    def feed(self, frames):
        h = self.h
        speech = 0.0
        for frame in frames:
            h = self.model.step(frame, h)
            speech += torch.sigmoid(self.model.out(h)).mean().item()
        self.h = h
        return speech / len(frames)


def main():
    model = VAD()
    opt = torch.optim.SGD(model.parameters(), lr=0.05)
    monitor = StreamMonitor(model)
    start = time.time()
    for step in range(STEPS):
        frames = torch.randn(8, FRAMES, BANDS)
        target = (frames.mean(-1) > 0).float()
        loss = nn.functional.binary_cross_entropy_with_logits(model(frames), target)
        opt.zero_grad()
        loss.backward()
        opt.step()
        rate = monitor.feed(torch.randn(4, monitor.channels, BANDS))
        if step % 200 == 0:
            print(f"step {step} loss {loss.item():.3f} speech {rate:.2f} {time.time() - start:.1f}s")


if __name__ == "__main__":
    main()
