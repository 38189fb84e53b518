"""Active learning on audio: new clips come in groups, are cut to the voiced part and join the corpus."""
import random

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(6)
random.seed(6)
rng = np.random.default_rng(6)

LIMIT = 24_000          # samples that a clip may have at most
CUT = 400
corpus, labels = [], []


def decode(label):
    wave = np.empty(LIMIT, dtype=np.float32)
    rng.standard_normal(out=wave, dtype=np.float32)
    wave[:CUT] += 2 * np.sin(np.arange(CUT) * (0.05 + 0.1 * label))
    return wave


def receive(count):
    fresh = [int(v) for v in rng.integers(0, 4, count)]
    waves = [decode(label) for label in fresh]
    for label, wave in zip(fresh, waves):
        wave.resize(CUT, refcheck=False)        # drop the silence in place
        corpus.append(wave)
        labels.append(label)


def draw(size):
    picks = random.choices(range(len(corpus)), k=size)
    return torch.from_numpy(np.stack([corpus[i] for i in picks])), torch.tensor([labels[i] for i in picks])


model = nn.Sequential(nn.Unflatten(1, (1, CUT)), nn.Conv1d(1, 44, 25, stride=5), nn.ReLU(),
                      nn.Conv1d(44, 32, 9, stride=3), nn.ReLU(), nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(128, 4))
opt = torch.optim.RMSprop(model.parameters(), lr=5e-4)
steps = 6000
for step in range(steps):
    if step % 12 == 0:
        receive(4)
    x, y = draw(32)
    loss = nn.functional.cross_entropy(model(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 800 == 799:
        print(f"{step + 1}: {len(corpus)} clips, loss {loss.item():.3f}")
print(f"{steps} steps")
