"""Residual MLP as an fx graph whose drop rates are rewritten as training goes on."""
import torch
import torch.fx
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(0)


class Block(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc = nn.Linear(dim, dim)

    def forward(self, x):
        return x + F.dropout(torch.tanh(self.fc(self.norm(x))), 0.1, True)


class Tower(nn.Module):
    def __init__(self, dim=48, depth=40):
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim) for _ in range(depth))
        self.out = nn.Linear(dim, 4)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.out(x)


def set_drop_rates(gm, rate):
    drops = [n for n in gm.graph.nodes if n.op == "call_function" and n.target is F.dropout]
    for i, node in enumerate(drops):
        node.kwargs = {**node.kwargs, "p": rate * (i + 1) / len(drops)}
    gm.recompile()


gm = torch.fx.symbolic_trace(Tower())
opt = torch.optim.AdamW(gm.parameters(), lr=5e-4)
proj = torch.randn(48, 4)
steps = 2000
for step in range(1, steps + 1):
    set_drop_rates(gm, 0.3 * (1 - step / steps))
    x = torch.randn(32, 48)
    y = (x @ proj).argmax(1)
    loss = F.cross_entropy(gm(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 200 == 0:
        print(f"step {step} loss {loss.item():.3f}", flush=True)
