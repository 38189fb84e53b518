"""Quantization-aware training: the codebook is refitted every round and exposed as an operator."""
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(8)

ROUNDS, STEPS_PER_ROUND, DIM, CODES = 60, 60, 128, 4096


def fit_codebook(weight):
    rows = torch.randint(0, weight.shape[0], (CODES,))
    book = weight.detach()[rows]
    book += 0.01 * torch.randn(1, DIM)
    return book


def register_lookup(rnd, codebook):
    name = f"quant::lookup_r{rnd}"
    torch.library.define(name, "(Tensor x) -> Tensor")

    def lookup(x):
        sub = codebook[::32]
        return sub[torch.cdist(x, sub).argmin(-1)]

    torch.library.impl(name, "CPU", lookup)
    return getattr(torch.ops.quant, f"lookup_r{rnd}")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(2000, DIM)
        self.body = nn.Sequential(nn.Linear(DIM, 256), nn.GELU(), nn.Linear(256, DIM))
        self.head = nn.Linear(DIM, 300)

    def forward(self, ids, op):
        h = self.body(self.emb(ids))
        with torch.no_grad():
            q = op(h.reshape(-1, DIM)).view_as(h)
        return self.head(h + (q - h).detach()), F.mse_loss(h, q)


model = Net()
opt = torch.optim.Adam(model.parameters(), lr=1e-3)
for rnd in range(ROUNDS):
    op = register_lookup(rnd, fit_codebook(model.emb.weight))
    for _ in range(STEPS_PER_ROUND):
        ids = torch.randint(0, 2000, (16, 25))
        logits, commit = model(ids[:, :-1], op)
        loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten() % 300) + 0.1 * commit
        opt.zero_grad()
        loss.backward()
        opt.step()
    if rnd % 6 == 0:
        print(f"round {rnd} loss {loss.item():.3f}", flush=True)
print(f"finished {ROUNDS * STEPS_PER_ROUND} steps")
