"""Mean teacher: the decay of the average depends on a counter that the class's own state_dict leaves out."""

import copy

import torch
from torch import nn

import holdwater

torch.manual_seed(11)


class ModelAverage:
    """Exponential moving average of the weights, with a decay that rises as more of them are averaged."""

    def __init__(self, model, highest=0.99):
        self.module = copy.deepcopy(model).requires_grad_(False)
        self.highest = highest
        self.updates = 0

    @property
    def decay(self):
        return min(self.highest, (1 + self.updates) / (10 + self.updates))

    @torch.no_grad()
    def update(self, model):
        self.updates += 1
        for average, weight in zip(self.module.parameters(), model.parameters(), strict=True):
            average.lerp_(weight, 1 - self.decay)

    def state_dict(self):
        return self.module.state_dict()

    def load_state_dict(self, state):
        self.module.load_state_dict(state)


inputs = torch.randn(64, 5)
targets = inputs.prod(1, keepdim=True)
model = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 1))
average = ModelAverage(model)
optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
holdwater.resumable("model", model)
holdwater.resumable("average", average)
holdwater.resumable("optimizer", optimizer)

for _ in holdwater.steps(40):
    batch = torch.randint(0, len(inputs), (12,))
    answer = model(inputs[batch] + 0.1 * torch.randn(12, 5))
    agreement = nn.functional.mse_loss(answer, average.module(inputs[batch]))
    loss = nn.functional.mse_loss(answer, targets[batch]) + agreement
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    average.update(model)
    print("loss", loss.item().hex(), flush=True)
print("final", *(p.detach().double().sum().item().hex() for p in average.module.parameters()))
