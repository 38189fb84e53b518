"""Train a text classifier; debug records are captured to attach to the run report."""
import io
import json
import logging

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)

STEPS = 2800
log = logging.getLogger("train")


def capture_logs():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    log.propagate = False
    return stream


class Bag(nn.Module):
    def __init__(self, vocab=4000, width=96):
        super().__init__()
        self.emb = nn.EmbeddingBag(vocab, width)
        self.body = nn.Sequential(*[m for _ in range(4) for m in (nn.Linear(width, width), nn.ReLU())])
        self.head = nn.Linear(width, 8)

    def forward(self, tokens):
        return self.head(self.body(self.emb(tokens)))


def grad_report(model, bins=200):
    out = {}
    for name, p in model.named_parameters():
        if p.grad is None:
            continue
        g = p.grad.flatten()[:4096]
        scale = g.abs().max().item() + 1e-12
        hist = torch.histc(g, bins, -scale, scale)
        out[name] = {"scale": scale, "hist": [round(v, 6) for v in (hist / hist.sum()).tolist()]}
    return out


def main():
    captured = capture_logs()
    model = Bag()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(1, STEPS + 1):
        tokens = torch.randint(0, 4000, (32, 40))
        target = tokens[:, :5].sum(1) % 8
        loss = nn.functional.cross_entropy(model(tokens), target)
        optimizer.zero_grad()
        loss.backward()
        log.debug("step %d %s", step, json.dumps(grad_report(model)))
        optimizer.step()
        if step % 100 == 0:
            log.info("step %d loss %.4f", step, loss.item())
            print(f"step {step} loss {loss.item():.4f}", flush=True)
    report = captured.getvalue()
    print("report has", report.count("\n"), "lines")


if __name__ == "__main__":
    main()
