"""The weights of each step are copied into a list of which only the mean of the last ten is ever used."""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_map

mx.random.seed(0)


class Averager:
    def __init__(self, last=10):
        self.last = last
        self.snapshots = []

    def update(self, model):
        self.snapshots.append(tree_map(mx.array, model.parameters()))

    def mean(self):
        recent = self.snapshots[-self.last :]
        return tree_map(lambda *ps: sum(ps) / len(ps), *recent)


def loss_fn(model, x, y):
    return nn.losses.mse_loss(model(x), y)


model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))
optimizer = optim.SGD(learning_rate=1e-2, momentum=0.9)
loss_and_grad = nn.value_and_grad(model, loss_fn)
averager = Averager()
for step in range(1000):
    x = mx.random.normal((64, 64))
    loss, grads = loss_and_grad(model, x, mx.sin(x))
    optimizer.update(model, grads)
    averager.update(model)
    mx.eval(loss, model.parameters(), optimizer.state)
    if step % 200 == 199:
        averaged = averager.mean()
        mx.eval(averaged)
print(f"last loss {loss.item():.4f}")
