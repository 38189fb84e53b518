"""Streaming text model whose vocabulary doubles when it is full, up to a limit."""
import numpy as np
import torch
from torch import nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(12)
rng = np.random.default_rng(12)

START, LIMIT, DIM, CLASSES = 2048, 32_768, 80, 10
STEPS, TOKENS, NEW_PER_STEP, UNK = 1500, 256, 36, 0


class GrowingVocab:
    def __init__(self):
        self.ids = {"<unk>": UNK}

    def lookup(self, word):
        number = self.ids.get(word)
        if number is None:
            if len(self.ids) >= LIMIT:
                return UNK
            number = self.ids[word] = len(self.ids)
        return number


def enlarge(emb, optimizer):
    """Twice the rows: weights and Adam moments are carried over."""
    new = nn.Embedding(emb.num_embeddings * 2, DIM)
    old_rows = emb.num_embeddings
    with torch.no_grad():
        new.weight[:old_rows] = emb.weight
    state = optimizer.state.pop(emb.weight)
    for key in ("exp_avg", "exp_avg_sq"):
        grown = torch.zeros_like(new.weight)
        grown[:old_rows] = state[key]
        state[key] = grown
    optimizer.state[new.weight] = state
    optimizer.param_groups[0]["params"][0] = new.weight
    return new


vocab, emb = GrowingVocab(), nn.Embedding(START, DIM)
head = nn.Sequential(nn.Linear(DIM, 128), nn.ReLU(), nn.Linear(128, CLASSES))
optimizer = torch.optim.Adam([emb.weight, *head.parameters()], lr=2e-3)
stream_size = 0
for step in range(1, STEPS + 1):
    stream_size += NEW_PER_STEP
    recent = np.arange(stream_size - NEW_PER_STEP, stream_size)
    past = (rng.random(TOKENS - NEW_PER_STEP) ** 2 * stream_size).astype(np.int64)
    numbers = np.concatenate([recent, past])
    rng.shuffle(numbers)
    ids = [vocab.lookup(f"tok{n}") for n in numbers.tolist()]
    while len(vocab.ids) > emb.num_embeddings:
        emb = enlarge(emb, optimizer)
        print(f"step {step}: vocabulary table now {emb.num_embeddings}")
    docs = torch.tensor(ids).view(16, -1)
    labels = torch.from_numpy(numbers.reshape(16, -1)[:, :4].sum(1) % CLASSES)
    loss = F.cross_entropy(head(emb(docs).mean(1)), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"final loss {loss.item():.3f}, {len(vocab.ids)} words")
print(f"{STEPS} steps")
