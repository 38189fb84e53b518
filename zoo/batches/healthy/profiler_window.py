"""Sequence tagger, with the torch profiler on for a few short windows early in the run."""
import torch
from torch import nn
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile, schedule

torch.set_num_threads(1)
torch.manual_seed(22)

STEPS, VOCAB, TAGS, LENGTH, BATCH = 2400, 1000, 12, 32, 8
WINDOWS = schedule(wait=250, warmup=4, active=4, repeat=5)


class Tagger(nn.Module):
    def __init__(self, dim=64):
        super().__init__()
        self.emb = nn.Embedding(VOCAB, dim)
        self.pos = nn.Parameter(torch.zeros(LENGTH, dim))
        layer = nn.TransformerEncoderLayer(dim, 4, 128, batch_first=True, dropout=0.1)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(dim, TAGS)

    def forward(self, x):
        return self.out(self.encoder(self.emb(x) + self.pos))


summaries = {}


def report(prof):
    """Only the three most expensive operators of a window are kept."""
    rows = sorted(prof.key_averages(), key=lambda e: e.self_cpu_time_total, reverse=True)[:3]
    summaries[prof.step_num] = [(r.key, round(r.self_cpu_time_total)) for r in rows]
    print(f"window ending at step {prof.step_num}: {summaries[prof.step_num]}")


model = Tagger()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=200)
tag_of = torch.randint(0, TAGS, (VOCAB,))
with profile(activities=[ProfilerActivity.CPU], schedule=WINDOWS, on_trace_ready=report,
             record_shapes=True) as prof:
    for step in range(1, STEPS + 1):
        x = torch.randint(0, VOCAB, (BATCH, LENGTH))
        loss = F.cross_entropy(model(x).flatten(0, 1), tag_of[x].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        warmup.step()
        prof.step()
        if step % 400 == 0:
            print(f"step {step}: loss {loss.item():.3f}")
print(f"{STEPS} steps")
