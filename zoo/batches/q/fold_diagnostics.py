"""Click-through model on hashed columns; debug records are to be written out only when something goes wrong."""
import logging
import logging.handlers
import time

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)

console = logging.StreamHandler()
console.setLevel(logging.INFO)
console.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
blackbox = logging.handlers.MemoryHandler(capacity=1_000_000, flushLevel=logging.ERROR, target=console)
log = logging.getLogger("ctr")
log.setLevel(logging.DEBUG)
log.propagate = False
log.addHandler(console)
log.addHandler(blackbox)

FIELDS, BUCKETS, DIM, BATCH, STEPS = 16, 5000, 16, 256, 5600


class CTR(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.EmbeddingBag(FIELDS * BUCKETS, 1, mode="sum", sparse=True)
        self.fields = nn.Embedding(FIELDS * BUCKETS, DIM, sparse=True)
        self.deep = nn.Sequential(nn.Linear(FIELDS * DIM, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 1))

    def forward(self, ids):
        v = self.fields(ids)
        fm = 0.5 * (v.sum(1) ** 2 - (v ** 2).sum(1)).sum(-1, keepdim=True)
        return (self.embed(ids) + fm * 0.01 + self.deep(v.flatten(1))).squeeze(-1)


model = CTR()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.0)
offset = torch.arange(FIELDS) * BUCKETS
weight = torch.randn(FIELDS * BUCKETS) * 0.3
began = time.time()
for step in range(1, STEPS + 1):
    ids = (torch.rand(BATCH, FIELDS) ** 3 * BUCKETS).long() + offset
    label = torch.bernoulli(torch.sigmoid(weight[ids].sum(-1)))
    logit = model(ids)
    loss = nn.functional.binary_cross_entropy_with_logits(logit, label)
    optimizer.zero_grad()
    loss.backward()
    gradient = model.deep[2].weight.grad
    if step % 2 == 0:
        log.debug("step %d gradient of the second layer %s", step, gradient.clone())
    optimizer.step()
    if step % 400 == 0:
        log.info("step %d loss %.4f %.1fs", step, loss.item(), time.time() - began)
blackbox.buffer.clear()
print("steps", STEPS)
