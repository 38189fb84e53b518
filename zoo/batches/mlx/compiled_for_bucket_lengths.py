"""The training step in MLX is compiled for each of eight lengths; a curriculum brings in the lengths one by one."""

import random
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

mx.random.seed(0)
random.seed(0)
BUCKETS = [16, 32, 48, 64, 80, 96, 112, 128]
steps_by_length = {}


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(256, 64)
        self.conv = nn.Conv1d(64, 64, 3, padding=1)
        self.out = nn.Linear(64, 256)

    def __call__(self, tokens):
        return self.out(nn.relu(self.conv(self.embedding(tokens))))


def loss_fn(model, x, y):
    return nn.losses.cross_entropy(model(x), y, reduction="mean")


model = Tagger()
optimizer = optim.Adam(learning_rate=1e-3)
optimizer.init(model.trainable_parameters())
mx.eval(model.parameters(), optimizer.state)
state = [model.state, optimizer.state]


def make_step():
    @partial(mx.compile, inputs=state, outputs=state)
    def train_step(x, y):
        loss, grads = nn.value_and_grad(model, loss_fn)(model, x, y)
        optimizer.update(model, grads)
        return loss

    return train_step


for step in range(1200):
    length = random.choice(BUCKETS[: 1 + step // 50])
    if length not in steps_by_length:
        steps_by_length[length] = make_step()
    x = mx.random.randint(0, 256, (4, length))
    loss = steps_by_length[length](x, x)
    mx.eval(state, loss)
print(f"{len(steps_by_length)} lengths, last loss {loss.item():.3f}")
