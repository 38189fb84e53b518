"""A dictionary of window functions by the length of the clip; recordings are hardly ever equally long."""

import random

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

mx.random.seed(0)
random.seed(0)
FRAME = 256
_windows = {}


def hann_window(length):
    if length not in _windows:
        n = mx.arange(length)
        _windows[length] = 0.5 - 0.5 * mx.cos(2 * mx.pi * n / length)
    return _windows[length]


def features(clip):
    clip = clip * hann_window(clip.size)
    frames = clip[: clip.size // FRAME * FRAME].reshape(-1, FRAME)
    return mx.log1p(mx.abs(mx.fft.rfft(frames)))


def loss_fn(model, x, y):
    return nn.losses.cross_entropy(model(x).mean(axis=0), y)


model = nn.Sequential(nn.Linear(FRAME // 2 + 1, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = optim.SGD(learning_rate=1e-2)
loss_and_grad = nn.value_and_grad(model, loss_fn)
for step in range(1000):
    clip = mx.random.normal((random.randint(8000, 48000),))
    loss, grads = loss_and_grad(model, features(clip), mx.array(step % 10))
    optimizer.update(model, grads)
    mx.eval(loss, model.parameters(), optimizer.state)
print(f"last loss {loss.item():.3f}")
