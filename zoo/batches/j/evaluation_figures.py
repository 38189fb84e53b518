"""Classifier whose evaluations draw a confusion matrix and a calibration curve."""
import gc
import io

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(18)

STEPS = 5000
WARMUP = 800
EVAL_EVERY = 200


def evaluate(model, step):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    x = torch.randn(4000, 64)
    y = x[:, :12].argmax(1)
    with torch.no_grad():
        p = model(x).softmax(1)
    table = torch.zeros(12, 12).index_put_((y, p.argmax(1)), torch.ones(len(y)), accumulate=True)
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 4), dpi=90)
    left.imshow(table.numpy())
    right.plot(p.amax(1).sort().values.numpy())
    fig.suptitle(f"step {step}")
    out = io.BytesIO()
    fig.savefig(out, format="png")
    plt.close(fig)
    gc.collect()
    return (p.argmax(1) == y).float().mean().item(), len(out.getvalue())


model = nn.Sequential(nn.Linear(64, 384), nn.ReLU(), nn.Linear(384, 12))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for step in range(1, STEPS + 1):
    x = torch.randn(384, 64)
    loss = F.cross_entropy(model(x), x[:, :12].argmax(1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step >= WARMUP and step % EVAL_EVERY == 0:
        acc, size = evaluate(model, step)
        print(f"step {step} loss {loss.item():.4f} acc {acc:.3f} figure {size} bytes", flush=True)
