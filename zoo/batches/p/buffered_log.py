"""Training log buffered in memory and written out in blocks."""
import logging
import logging.handlers
import os
import tempfile

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(17)

STEPS, BLOCK = 3400, 150
folder = tempfile.TemporaryDirectory()
target = logging.FileHandler(os.path.join(folder.name, "train.log"))
target.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
buffered = logging.handlers.MemoryHandler(BLOCK, flushLevel=logging.ERROR, target=target)
log = logging.getLogger("train")
log.setLevel(logging.INFO)
log.addHandler(buffered)
log.propagate = False

model = nn.Sequential(nn.Embedding(700, 64), nn.Linear(64, 192), nn.GELU(), nn.Linear(192, 700))
opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
for step in range(STEPS):
    ids = torch.randint(0, 700, (16, 33))
    logits = model(ids[:, :-1])
    nll = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    loss = nll.mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    grad = model[3].weight.grad[:8].flatten().tolist()
    log.info("step %d nll %s grad %s logits %s", step, nll.tolist(), grad, logits.detach()[0, :6].flatten().tolist())
    if step % 300 == 0:
        print(f"step {step} loss {loss.item():.3f}", flush=True)
print(f"finished {STEPS} steps")
