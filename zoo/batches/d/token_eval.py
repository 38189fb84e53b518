"""Character model whose evaluation gathers all logits before the metrics are computed."""
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(13)

VOCAB, WINDOW = 512, 32


class CharModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, 48)
        self.mix = nn.Conv1d(48, 96, 4, padding=3)
        self.head = nn.Linear(96, VOCAB)

    def forward(self, tokens):
        x = self.mix(self.embed(tokens).transpose(1, 2))[..., :tokens.size(1)]
        return self.head(torch.relu(x).transpose(1, 2))


class Evaluator:
    def __init__(self, text, batches=40):
        self.text, self.batches = text, batches
        self.scores = []

    @torch.no_grad()
    def run(self, model):
        logits, targets = [], []
        for _ in range(self.batches):
            x, y = draw(self.text, 16)
            logits.append(model(x))
            targets.append(y)
        logits, targets = torch.cat(logits).flatten(0, 1), torch.cat(targets).flatten()
        self.scores.append((logits.argmax(1) == targets).float().mean().item())
        return self.scores[-1]


def draw(text, size):
    at = torch.randint(0, len(text) - WINDOW - 1, (size, 1)) + torch.arange(WINDOW + 1)
    return text[at][:, :-1], text[at][:, 1:]


text = (torch.arange(40_000) * 37 % 211 + torch.randint(0, 40, (40_000,))) % VOCAB
model = CharModel()
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
evaluator = Evaluator(text[30_000:])
for step in range(1, 2401):
    x, y = draw(text[:30_000], 16)
    loss = nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 60 == 0:
        score = evaluator.run(model)
        print(f"{step}: accuracy {score:.3f}")
print(f"{step} steps")
