"""Each task brings a new head and a new optimizer; the head is replaced, the optimizer stays in a list."""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

mx.random.seed(0)


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(64, 256)
        self.head = nn.Linear(256, 256)

    def __call__(self, x):
        return self.head(nn.relu(self.body(x)))


def loss_fn(model, x, y):
    return nn.losses.cross_entropy(model(x), y, reduction="mean")


model = Network()
model.body.freeze()
loss_and_grad = nn.value_and_grad(model, loss_fn)
optimizers = []
for task in range(200):
    model.head = nn.Linear(256, 256)
    optimizer = optim.Adam(learning_rate=1e-3)
    optimizers.append(optimizer)
    for step in range(5):
        x = mx.random.normal((64, 64))
        y = mx.random.randint(0, 256, (64,))
        loss, grads = loss_and_grad(model, x, y)
        optimizer.update(model, grads)
        mx.eval(loss, model.parameters(), optimizer.state)
print(f"{len(optimizers)} tasks, last loss {loss.item():.3f}")
