"""Training whose detailed step log is buffered in memory and written in one go."""
import logging
import logging.handlers
import os
import tempfile

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
STEPS, CAPACITY = 3200, 300


class Summary(logging.Formatter):
    def format(self, record):
        step, activations = record.args
        return f"{step} mean {activations.mean():.5f} std {activations.std():.5f}"


def build_logger(path):
    sink = logging.FileHandler(path)
    sink.setFormatter(Summary())
    log = logging.getLogger("train.details")
    log.setLevel(logging.DEBUG)
    log.propagate = False
    log.addHandler(logging.handlers.MemoryHandler(CAPACITY, flushLevel=logging.ERROR, target=sink))
    return log


def main():
    path = os.path.join(tempfile.gettempdir(), f"details-{os.getpid()}.log")
    log = build_logger(path)
    body = nn.Sequential(nn.Linear(300, 768), nn.GELU())
    head = nn.Sequential(nn.Linear(768, 512), nn.GELU(), nn.Linear(512, 6))
    opt = torch.optim.AdamW([*body.parameters(), *head.parameters()], lr=3e-4)
    for step in range(1, STEPS + 1):
        x = torch.randn(80, 300)
        y = x[:, :6].argmax(1)
        hidden = body(x)
        loss = nn.functional.cross_entropy(head(hidden), y)
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        log.debug("%d %s", step, hidden.detach())
        if step % 320 == 0:
            print(f"step {step} loss {loss.item():.4f}", flush=True)
    logging.shutdown()
    os.remove(path)


if __name__ == "__main__":
    main()
