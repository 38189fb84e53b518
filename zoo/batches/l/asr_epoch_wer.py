"""CTC recogniser; the log-probabilities of the whole epoch are decoded together at its end."""
import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(12)

VOCAB = 256


class Recogniser(nn.Module):
    def __init__(self):
        super().__init__()
        self.front = nn.Conv1d(40, 96, 5, padding=2)
        self.body = nn.Conv1d(96, 96, 5, padding=2)
        self.head = nn.Linear(96, VOCAB)

    def forward(self, feats):
        h = torch.relu(self.body(torch.relu(self.front(feats))))
        return self.head(h.transpose(1, 2)).log_softmax(-1)


def distance(a, b):
    row = np.arange(len(b) + 1)
    for i, x in enumerate(a, 1):
        prev, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            prev, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, prev + (x != y))
    return row[-1]


def greedy(logp):
    best = logp.argmax(-1)
    best = best[np.insert(np.diff(best) != 0, 0, True)]
    return best[best != 0]


codebook = torch.randn(VOCAB, 40)
model = Recogniser()
opt = torch.optim.Adam(model.parameters(), lr=2e-3)
ctc = nn.CTCLoss()

step = 0
for epoch in range(10):
    outputs, references = [], []
    for _ in range(320):
        target = torch.randint(1, VOCAB, (8, 12))
        feats = codebook[target].repeat_interleave(5, 1).transpose(1, 2) + 0.5 * torch.randn(8, 40, 60)
        logp = model(feats)
        loss = ctc(logp.transpose(0, 1), target, torch.full((8,), 60), torch.full((8,), 12))
        opt.zero_grad()
        loss.backward()
        opt.step()
        step += 1
        outputs.append(logp.detach().numpy())
        references.append(target.numpy())
    pairs = [(greedy(p), t) for out, ref in zip(outputs, references) for p, t in zip(out, ref)]
    errors = sum(distance(h, t) for h, t in pairs[-200:])
    print(f"epoch {epoch} step {step} loss {loss.item():.3f} ter {errors / (200 * 12):.3f}", flush=True)
    del outputs, references, pairs
