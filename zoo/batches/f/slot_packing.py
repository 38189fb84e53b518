"""Train a small causal mixer on packed sequences whose tokens live in a paged slot arena."""
import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(4)
STEPS = 3000
WIDTH = 48


class SlotPool:
    """Hands out arena slots in ring order; slots are zeroed before use by recurrent layers."""

    def __init__(self, capacity, recurrent=False):
        self.capacity = capacity
        self.recurrent = recurrent
        self.cursor = 0
        self.fresh = []

    def allocate(self, n):
        slots = [(self.cursor + i) % self.capacity for i in range(n)]
        self.cursor = (self.cursor + n) % self.capacity
        self.fresh.extend(slots)
        return slots

    def take_fresh(self):
        out, self.fresh = self.fresh, []
        return out


class Mixer(nn.Module):
    def __init__(self, vocab=512):
        super().__init__()
        self.embed = nn.Embedding(vocab, WIDTH)
        self.body = nn.Sequential(nn.Linear(WIDTH, 128), nn.GELU(), nn.Linear(128, WIDTH))
        self.head = nn.Linear(WIDTH, vocab)

    def forward(self, tokens, arena, slots):
        x = self.embed(tokens)
        arena[slots] = x.detach()
        context = arena[slots].cumsum(0) / torch.arange(1, len(slots) + 1).unsqueeze(1)
        return self.head(x + self.body(x + context))


def main():
    rng = np.random.default_rng(0)
    pool = SlotPool(capacity=65536)
    arena = torch.zeros(pool.capacity, WIDTH)
    model = Mixer()
    opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(STEPS):
        lengths = 20 + rng.multinomial(420, np.ones(14) / 14)
        slots = []
        for n in lengths:
            slots += pool.allocate(int(n))
        if pool.recurrent:
            arena[pool.take_fresh()] = 0.0
        tokens = torch.from_numpy(rng.integers(0, 512, size=len(slots)))
        logits = model(tokens[:-1], arena, torch.tensor(slots[:-1]))
        loss = nn.functional.cross_entropy(logits, tokens[1:])
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 500 == 0:
            print(f"step {step} loss {loss.item():.3f} tokens {len(slots)}")
    print(f"{STEPS} steps")


if __name__ == "__main__":
    main()
