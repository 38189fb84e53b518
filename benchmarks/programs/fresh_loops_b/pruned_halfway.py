"""Weights are pruned twice: the keys of the model's state_dict change, and a fresh model lacks the masks."""

import torch
from torch import nn
from torch.nn.utils import prune

import holdwater

torch.manual_seed(17)
inputs = torch.randn(80, 8)
labels = (inputs[:, :4].sum(1) > inputs[:, 4:].sum(1)).long()


class Classifier(nn.Module):
    """Two layers."""

    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(8, 20)
        self.out = nn.Linear(20, 2)

    def forward(self, x):
        return self.out(torch.relu(self.hidden(x)))


model = Classifier()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
holdwater.resumable("model", model)
holdwater.resumable("optimizer", optimizer)

for step in holdwater.steps(40):
    if step in {13, 26}:
        for layer in (model.hidden, model.out):
            prune.l1_unstructured(layer, "weight", amount=0.3)
    batch = torch.randint(0, len(inputs), (16,))
    loss = nn.functional.cross_entropy(model(inputs[batch]), labels[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print("loss", loss.item().hex(), flush=True)
for layer in (model.hidden, model.out):
    prune.remove(layer, "weight")
    print("zeros", int((layer.weight == 0).sum()))
print("final", *(p.detach().double().sum().item().hex() for p in model.parameters()))
