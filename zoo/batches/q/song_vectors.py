"""Item vectors for a catalogue that is met little by little: new users and songs turn up while training runs."""
import time

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
SONGS, DIM, BATCH, NEG, STEPS = 160_000, 128, 640, 4, 5800


class Lazy(torch.optim.Optimizer):
    """Adagrad by row, the accumulator of a song is made when the song is first met."""

    def __init__(self, table, lr):
        super().__init__([table], dict(lr=lr))
        self.rows = {}

    @torch.no_grad()
    def step(self):
        table = self.param_groups[0]["params"][0]
        grad = table.grad.coalesce()
        for i, g in zip(grad.indices()[0].tolist(), grad.values()):
            h = self.rows.get(i)
            if h is None:
                h = self.rows[i] = torch.full((DIM,), 0.1)
            h.addcmul_(g, g)
            table[i].addcdiv_(g, h.sqrt(), value=-self.param_groups[0]["lr"])


ACTIVE = 60_000
songs = nn.Embedding(SONGS, DIM, sparse=True)
nn.init.normal_(songs.weight, std=0.1)
optimizer = Lazy(songs.weight, lr=0.1)
began = time.time()
for step in range(1, STEPS + 1):
    reach = min(ACTIVE, 2000 + 30 * step)
    last = torch.randint(0, reach, (BATCH // 4,))
    following = (last + torch.randint(1, 30, last.shape)) % reach
    other = torch.randint(0, min(reach, 400), (NEG,))
    a, b, n = songs(last), songs(following), songs(other)
    logits = torch.cat([(a * b).sum(-1, keepdim=True), a @ n.T], 1)
    loss = nn.functional.cross_entropy(logits, torch.zeros(len(last), dtype=torch.long))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 400 == 0:
        print(f"step {step} loss {loss.item():.4f} rows {len(optimizer.rows)} {time.time() - began:.1f}s", flush=True)
print("steps", STEPS)
