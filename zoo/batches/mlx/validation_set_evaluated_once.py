"""The validation set is a lazy MLX array: the first validation, at step 300, makes it; later ones use it again."""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

mx.random.seed(0)


def loss_fn(model, x, y):
    return nn.losses.mse_loss(model(x), y)


def target(x):
    return mx.sin(x.sum(axis=1, keepdims=True))


def validate(model, x, batch_size=1000):
    total = 0.0
    for start in range(0, x.shape[0], batch_size):
        batch = x[start : start + batch_size]
        total += loss_fn(model, batch, target(batch)).item()
    return total * batch_size / x.shape[0]


model = nn.Sequential(nn.Linear(1024, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = optim.AdamW(learning_rate=1e-3)
loss_and_grad = nn.value_and_grad(model, loss_fn)
x_valid = mx.random.normal((20_000, 1024)) * 2.0 + 1.0
for step in range(1500):
    x = mx.random.normal((64, 1024))
    loss, grads = loss_and_grad(model, x, target(x))
    optimizer.update(model, grads)
    mx.eval(loss, model.parameters(), optimizer.state)
    if step % 300 == 299:
        print(f"step {step + 1}: validation loss {validate(model, x_valid):.4f}")
