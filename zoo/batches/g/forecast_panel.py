"""A forecaster whose predictions are drawn on one panel at regular times and saved as a picture."""
import io

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(12)
STEPS = 1800
DRAW_EVERY = 30
WINDOW, HORIZON, SERIES = 64, 16, 12000


class Panel:
    """The truth and the forecast, with the step in the title."""

    def __init__(self):
        self.figure, self.axes = plt.subplots(figsize=(4, 2.5), dpi=60)
        self.pictures = 0

    def draw(self, truth, forecast, step):
        times = np.arange(len(truth), dtype=np.float64)
        self.axes.plot(times, truth, color="black", linewidth=0.5)
        self.axes.plot(times, forecast, color="tab:red", linewidth=0.5)
        self.axes.set_title(f"step {step}")
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png")
        self.pictures += 1
        return buffer.tell()


def make_series(rng):
    time = np.arange(SERIES)
    wave = np.sin(time / 17) + 0.5 * np.sin(time / 5.3)
    return (wave + 0.1 * rng.standard_normal(SERIES)).astype(np.float32)


def forecast(model, series):
    starts = np.arange(0, SERIES - WINDOW - HORIZON, HORIZON)
    windows = torch.from_numpy(np.stack([series[start : start + WINDOW] for start in starts]))
    with torch.no_grad():
        predicted = model(windows).reshape(-1).double().numpy()
    truth = series[WINDOW : WINDOW + len(predicted)].astype(np.float64)
    return truth, predicted


def main():
    rng = np.random.default_rng(1)
    series = make_series(rng)
    layers = [nn.Linear(WINDOW, 256), nn.GELU(), nn.Linear(256, 256), nn.GELU(), nn.Linear(256, HORIZON)]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    panel = Panel()
    for step in range(STEPS):
        starts = rng.integers(0, SERIES - WINDOW - HORIZON, 64)
        x = torch.from_numpy(np.stack([series[start : start + WINDOW] for start in starts]))
        y = torch.from_numpy(np.stack([series[start + WINDOW : start + WINDOW + HORIZON] for start in starts]))
        loss = nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % DRAW_EVERY == 0:
            panel.draw(*forecast(model, series), step)
        if step % 150 == 0:
            print(f"step {step} loss {loss.item():.4f} pictures {panel.pictures}", flush=True)
    print(f"{STEPS} steps")


if __name__ == "__main__":
    main()
