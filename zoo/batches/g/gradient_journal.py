"""Training with a journal of debug messages that is written to its file when an error occurs."""
import logging
import logging.handlers
import os

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(17)
STEPS = 4500
JOURNAL_EVERY = 5
FEATURES, HIDDEN, CLASSES = 128, 320, 96


def make_logger():
    """Messages are buffered; only an error writes them, so that a crash leaves its history."""
    target = logging.FileHandler(os.devnull)
    target.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message).200s"))
    logger = logging.getLogger("train")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(logging.handlers.MemoryHandler(100_000, flushLevel=logging.ERROR, target=target))
    return logger


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU())
        self.head = nn.Linear(HIDDEN, CLASSES)

    def forward(self, x):
        return self.head(self.body(x))


def main():
    logger = make_logger()
    model = Tagger()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    teacher = torch.randn(FEATURES, CLASSES)
    for step in range(STEPS):
        x = torch.randn(64, FEATURES)
        loss = nn.functional.cross_entropy(model(x), (x @ teacher).argmax(1))
        optimizer.zero_grad()
        loss.backward()
        if step % JOURNAL_EVERY == 0:
            logger.debug("step %d gradient of the head %s", step, model.head.weight.grad)
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if not torch.isfinite(norm):
            logger.error("step %d norm %s", step, norm)
        if step % 250 == 0:
            print(f"step {step} loss {loss.item():.4f} norm {norm:.3f}", flush=True)
    print(f"{STEPS} steps")


if __name__ == "__main__":
    main()
