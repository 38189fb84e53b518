"""A running total of the loss in MLX that is read after the last step only: each loss waits with its inputs."""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

mx.random.seed(0)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 256))
optimizer = optim.Adam(learning_rate=1e-3)
projection = mx.random.normal((64, 256))


def loss_fn(model, x, y):
    return nn.losses.mse_loss(model(x), y)


loss_and_grad = nn.value_and_grad(model, loss_fn)
total_loss = mx.array(0.0)
for step in range(1000):
    x = mx.random.normal((128, 64))
    y = mx.tanh(x @ projection)
    loss, grads = loss_and_grad(model, x, y)
    optimizer.update(model, grads)
    mx.eval(model.parameters(), optimizer.state)
    total_loss = total_loss + loss
print(f"mean loss {total_loss.item() / 1000:.4f}")
