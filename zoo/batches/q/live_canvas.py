"""Autoencoder on synthetic spectra with a monitoring figure that is redrawn at each round."""
import io

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
import torch.nn as nn

STEPS = 4400
ROUND = 50

torch.set_num_threads(1)
torch.manual_seed(8)


def annotate(fig, ax, residual):
    def on_draw(event):
        worst = residual.abs().mean(1).argmax().item()
        ax.set_xlabel(f"worst spectrum {worst}")

    fig.canvas.mpl_connect("draw_event", on_draw)


def main():
    model = nn.Sequential(nn.Linear(400, 256), nn.ReLU(), nn.Linear(256, 16), nn.ReLU(), nn.Linear(16, 256), nn.ReLU(), nn.Linear(256, 400))
    opt = torch.optim.Adam(model.parameters(), lr=1e-3)
    basis = torch.rand(6, 400)
    held_out = torch.rand(1500, 6) @ basis
    fig, ax = plt.subplots(figsize=(3, 2), dpi=60)
    (line,) = ax.plot([], [])
    curve = []
    for step in range(1, STEPS + 1):
        x = torch.rand(160, 6) @ basis
        loss = (model(x) - x).pow(2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % ROUND == 0:
            with torch.no_grad():
                residual = model(held_out) - held_out
            curve.append(residual.pow(2).mean().item())
            line.set_data(range(len(curve)), curve)
            ax.relim()
            ax.autoscale_view()
            annotate(fig, ax, residual)
            fig.savefig(io.BytesIO(), format="png")
        if step % 250 == 0:
            print(f"step {step} held-out mse {curve[-1]:.5f}")


main()
