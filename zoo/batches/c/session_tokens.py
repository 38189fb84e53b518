import random

import torch
import torch.nn as nn
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

torch.set_num_threads(1)
torch.manual_seed(24)
VERBS = "viewed clicked bought returned rated shared saved opened closed searched".split()
ITEMS = "lamp chair table phone cable glass shirt jacket novel guitar candle bottle".split()


class ClickText:
    """Lines of a click log; each refers to a session and a visitor."""

    def __init__(self, seed=31):
        self.rng = random.Random(seed)

    def line(self):
        visitor = f"usr_{self.rng.getrandbits(52):013x}"
        return visitor, f"{visitor} {self.rng.choice(VERBS)} {self.rng.choice(ITEMS)} {self.rng.choice(ITEMS)}"


class LogTokenizer:
    def __init__(self):
        self.tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
        self.tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["[UNK]", "[PAD]"], show_progress=False)
        self.tokenizer.train_from_iterator([" ".join(VERBS + ITEMS)] * 20, trainer)
        self.pending = []

    def encode(self, rows, length=12):
        self.pending += [visitor for visitor, _ in rows]
        if len(self.pending) >= 256:
            self.tokenizer.add_tokens(self.pending)
            self.pending = []
        encoded = self.tokenizer.encode_batch([text for _, text in rows])
        ids = [(e.ids + [1] * length)[:length] for e in encoded]
        return torch.tensor(ids) % 4096


class ClickModel(nn.Module):
    def __init__(self, dim=48):
        super().__init__()
        self.embed = nn.Embedding(4096, dim)
        self.rnn = nn.GRU(dim, 64, batch_first=True)
        self.out = nn.Linear(64, 4096)

    def forward(self, ids):
        return self.out(self.rnn(self.embed(ids))[0])


source, tokenizer, model = ClickText(), LogTokenizer(), ClickModel()
optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
for step in range(1, 1351):
    ids = tokenizer.encode([source.line() for _ in range(16)])
    loss = nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten(), ignore_index=1)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 150 == 0:
        print(f"{step} loss {loss.item():.3f}")
print(f"{step} steps")
