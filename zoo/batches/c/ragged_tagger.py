import torch
import torch.nn as nn
from torch.nn.utils.rnn import pad_sequence

torch.set_num_threads(1)
torch.manual_seed(44)
VOCAB, TAGS = 500, 9


def sentence(low=8, high=90):
    words = torch.randint(1, VOCAB, (int(torch.randint(low, high, ())),))
    tags = (words + words.roll(1)) % TAGS
    return words, tags


def batch_of(n):
    pairs = sorted((sentence() for _ in range(n)), key=lambda p: -len(p[0]))
    words, tags = zip(*pairs)
    return pad_sequence(words, batch_first=True), pad_sequence(tags, batch_first=True, padding_value=-100)


class Tagger(nn.Module):
    def __init__(self, dim=64):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, dim, padding_idx=0)
        self.mix = nn.Linear(3 * dim, 160)
        self.out = nn.Sequential(nn.ReLU(), nn.LayerNorm(160), nn.Linear(160, TAGS))

    def forward(self, words):
        x = self.embed(words)
        before = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)
        after = torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], dim=1)
        return self.out(self.mix(torch.cat([before, x, after], dim=2)))


def masked_accuracy(logits, tags):
    mask = tags >= 0
    return (logits.argmax(-1)[mask] == tags[mask]).float().mean().item()


model = Tagger()
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
smoothed = 0.0
for step in range(1, 1901):
    words, tags = batch_of(24)
    logits = model(words)
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), tags.flatten(), ignore_index=-100)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    smoothed = 0.98 * smoothed + 0.02 * masked_accuracy(logits.detach(), tags)
    if step % 200 == 0:
        print(f"{step} width {words.shape[1]} loss {loss.item():.3f} accuracy {smoothed:.3f}")
print(f"{step} steps")
