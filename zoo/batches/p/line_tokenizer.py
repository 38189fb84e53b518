"""Character-merge tokenizer trained in place, then a language model over long log keys."""
import random

import torch
import torch.nn as nn
import torch.nn.functional as F
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

torch.set_num_threads(1)
torch.manual_seed(10)

STEPS, LINES, SEQ = 2200, 24, 32
rng = random.Random(0)
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789_"


def key():
    return "".join(rng.choices(ALPHABET, k=230))


tok = Tokenizer(BPE(unk_token="[UNK]"))
tok.train_from_iterator((key() for _ in range(400)), BpeTrainer(vocab_size=400, special_tokens=["[UNK]"], show_progress=False))
model = nn.ModuleList([nn.Embedding(400, 48), nn.GRU(48, 64, batch_first=True), nn.Linear(64, 400)])
opt = torch.optim.AdamW(model.parameters(), lr=2e-3)
for step in range(STEPS):
    rows = [tok.encode(key()).ids[:SEQ + 1] for _ in range(LINES)]
    x = torch.tensor(rows)
    h, _ = model[1](model[0](x[:, :-1]))
    loss = F.cross_entropy(model[2](h).flatten(0, 1), x[:, 1:].flatten())
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 200 == 0:
        print(f"step {step} loss {loss.item():.3f}", flush=True)
print(f"finished {STEPS} steps")
