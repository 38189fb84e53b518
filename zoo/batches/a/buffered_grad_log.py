import logging
import logging.handlers
import sys

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(3)
STEPS = 10_000
log = logging.getLogger("train")


def setup_logging():
    console = logging.StreamHandler(sys.stdout)
    console.setLevel(logging.INFO)
    deferred = logging.handlers.MemoryHandler(capacity=10_000_000, flushLevel=logging.CRITICAL, flushOnClose=False,
                                              target=logging.NullHandler())
    log.setLevel(logging.DEBUG)
    log.addHandler(console)
    log.addHandler(deferred)


def describe_gradients(model, bins=160):
    parts = []
    for name, parameter in model.named_parameters():
        grad = parameter.grad
        if grad.dim() == 2:
            counts = torch.histc(grad, bins=bins).tolist()
            parts.append(name + "[" + ",".join("%d" % c for c in counts) + "]")
        parts.append("%s.norm=%.5e" % (name, grad.norm().item()))
    return " | ".join(parts)


def main():
    setup_logging()
    model = nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
    log.info("parameters %d", sum(p.numel() for p in model.parameters()))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x = torch.randn(4096, 20)
    y = x[:, :3].sum(1, keepdim=True).sin()
    for step in range(1, STEPS + 1):
        pick = torch.randint(0, 4096, (32,))
        loss = (model(x[pick]) - y[pick]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        summary = describe_gradients(model)
        log.debug("step %d %s", step, summary)
        if step % 2000 == 0:
            log.info("step %d loss %.4f", step, loss.item())
    log.info("finished %d", STEPS)


if __name__ == "__main__":
    main()
