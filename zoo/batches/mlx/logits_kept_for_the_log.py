"""The loss and the logits of each MLX training step are appended to a list, to be logged after training."""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim

mx.random.seed(0)


class Classifier(nn.Module):
    def __init__(self, dims, classes):
        super().__init__()
        self.fc1 = nn.Linear(dims, 128)
        self.fc2 = nn.Linear(128, classes)

    def __call__(self, x):
        return self.fc2(nn.gelu(self.fc1(x)))


def loss_fn(model, x, y):
    logits = model(x)
    return nn.losses.cross_entropy(logits, y, reduction="mean"), logits


model = Classifier(64, 500)
optimizer = optim.AdamW(learning_rate=1e-3)
mx.eval(model.parameters())
loss_and_grad = nn.value_and_grad(model, loss_fn)
records = []
for step in range(900):
    x = mx.random.normal((64, 64))
    y = mx.random.randint(0, 500, (64,))
    (loss, logits), grads = loss_and_grad(model, x, y)
    optimizer.update(model, grads)
    mx.eval(model.state, optimizer.state, loss)
    records.append({"step": step, "loss": loss, "logits": logits})
print(len(records), records[-1]["loss"].item())
