"""Mixture-of-experts language model with a running record of router entropy."""
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(6)

STEPS, VOCAB, DIM, EXPERTS = 2300, 600, 48, 12


class Router(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(DIM, EXPERTS)
        self.running_entropy = torch.zeros(())

    def forward(self, h):
        probs = self.gate(h).softmax(-1)
        entropy = -(probs * probs.clamp_min(1e-9).log()).sum(-1).mean()
        self.running_entropy = 0.98 * self.running_entropy + 0.02 * entropy
        return probs


class MoE(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(VOCAB, DIM)
        self.router = Router()
        self.experts = nn.ModuleList(nn.Linear(DIM, DIM) for _ in range(EXPERTS))
        self.head = nn.Linear(DIM, VOCAB)

    def forward(self, ids):
        h = self.emb(ids)
        weight, pick = self.router(h).topk(2, dim=-1)
        out = torch.zeros_like(h)
        for e, expert in enumerate(self.experts):
            w = (weight * (pick == e)).sum(-1, keepdim=True)
            out = out + w * F.gelu(expert(h))
        return self.head(h + out)


model = MoE()
opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
for step in range(STEPS):
    ids = torch.randint(0, VOCAB, (12, 41))
    logits = model(ids[:, :-1])
    loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 150 == 0:
        print(f"step {step} loss {loss.item():.3f} entropy {float(model.router.running_entropy):.3f}", flush=True)
print(f"finished {STEPS} steps")
