"""Transcript language model over a byte-pair tokenizer trained on the spot."""
import random

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(11)
rnd = random.Random(11)

STEPS = 2600
SYL = ["ka", "lo", "mi", "ren", "tos", "vu", "shi", "bar", "del", "no", "fa", "gru", "ith", "ow", "pel"]


def word():
    return "".join(rnd.choice(SYL) for _ in range(rnd.randint(12, 22)))


def sentence(n):
    return " ".join(word() for _ in range(n))


tok = Tokenizer(models.BPE(unk_token="<unk>"))
tok.pre_tokenizer = pre_tokenizers.Whitespace()
tok.train_from_iterator((sentence(20) for _ in range(200)), trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>"], show_progress=False))


class LM(nn.Module):
    def __init__(self, v=256, d=64):
        super().__init__()
        self.emb = nn.Embedding(v, d)
        self.rnn = nn.GRU(d, d, batch_first=True)
        self.out = nn.Linear(d, v)

    def forward(self, x):
        return self.out(self.rnn(self.emb(x))[0])


model = LM()
opt = torch.optim.Adam(model.parameters(), lr=2e-3)
for step in range(STEPS):
    ids = [tok.encode(sentence(12)).ids[:48] for _ in range(8)]
    n = min(map(len, ids))
    x = torch.tensor([i[:n] for i in ids])
    loss = F.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 200 == 0:
        print(f"step {step} loss {loss.item():.3f}", flush=True)
