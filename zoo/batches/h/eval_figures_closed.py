"""Every evaluation draws curves and an activation map with a temporary hook; all is closed again."""
import gc
import io

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(29)

STEPS, EVAL_EVERY = 4500, 150


def evaluate(model, x, losses):
    maps = []
    handle = model[1].register_forward_hook(lambda mod, args, out: maps.append(out.detach()))
    with torch.no_grad():
        out = model(x)
    handle.remove()
    fig, (left, right) = plt.subplots(1, 2, figsize=(6, 3))
    left.plot(losses[-1500::5])
    right.imshow(maps[0][:64].numpy(), aspect="auto")
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png")
    plt.close(fig)
    del fig, left, right, maps
    gc.collect()
    return out.pow(2).mean().item(), len(buffer.getvalue())


def main():
    model = nn.Sequential(nn.Linear(48, 1024), nn.ReLU(), nn.Linear(1024, 48))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    held_out = torch.randn(2048, 48)
    losses = []
    for step in range(1, STEPS + 1):
        x = torch.randn(128, 48)
        loss = nn.functional.mse_loss(model(x), x.flip(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % EVAL_EVERY == 0:
            power, size = evaluate(model, held_out, losses)
            print(f"step {step} loss {loss.item():.4f} power {power:.3f} png {size}", flush=True)


if __name__ == "__main__":
    main()
