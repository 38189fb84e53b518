"""Speaker embedding training with a buffered debug log behind the console log."""
import logging
import logging.handlers

import torch
from torch import nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(6)

STEPS = 2400
SPEAKERS = 64


def setup_logging():
    log = logging.getLogger("xvector")
    log.setLevel(logging.DEBUG)
    log.propagate = False
    console = logging.StreamHandler()
    console.setLevel(logging.INFO)
    log.addHandler(console)
    buffered = logging.handlers.MemoryHandler(capacity=200, flushLevel=logging.ERROR)
    buffered.setLevel(logging.DEBUG)
    log.addHandler(buffered)
    return log


class XVector(nn.Module):
    def __init__(self):
        super().__init__()
        self.tdnn1 = nn.Conv1d(24, 96, 5)
        self.tdnn2 = nn.Conv1d(96, 96, 3, dilation=2)
        self.emb = nn.Linear(192, 256)
        self.out = nn.Linear(256, SPEAKERS)

    def forward(self, x):
        h = F.relu(self.tdnn2(F.relu(self.tdnn1(x))))
        stats = torch.cat([h.mean(2), h.std(2)], 1)
        e = self.emb(stats)
        return e, self.out(F.relu(e))


log = setup_logging()
prints = torch.randn(SPEAKERS, 24)
model = XVector()
opt = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)

for step in range(STEPS):
    y = torch.randint(0, SPEAKERS, (96,))
    x = prints[y][:, :, None] * 0.4 + torch.randn(96, 24, 30)
    emb, logits = model(x)
    loss = F.cross_entropy(logits, y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 3 == 0:
        log.debug("step %d embeddings %s speakers %s", step, emb.detach(), y)
    if step % 250 == 0:
        log.info("step %d loss %.3f", step, loss.item())
