"""Batches of many sizes: MLX keeps freed buffers in its cache for the next batch, up to the limit set for it."""

import random

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

mx.random.seed(0)
random.seed(0)
mx.set_cache_limit(100 * 1024 * 1024)


def loss_fn(model, x):
    return nn.losses.mse_loss(model(x), x)


model = nn.Sequential(nn.Linear(32, 256), nn.ReLU(), nn.Linear(256, 32))
optimizer = optim.Adam(learning_rate=1e-3)
loss_and_grad = nn.value_and_grad(model, loss_fn)
for step in range(1500):
    x = mx.random.normal((random.randint(32, 512), 32))
    loss, grads = loss_and_grad(model, x)
    optimizer.update(model, grads)
    mx.eval(loss, model.parameters(), optimizer.state)
print(f"{mx.get_active_memory()} bytes in use, {mx.get_cache_memory()} bytes in the cache")
