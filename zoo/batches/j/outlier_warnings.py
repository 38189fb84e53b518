"""Tabular regression that warns about the rows of a batch that lie far out."""
import logging
import warnings

import torch
import torch.nn as nn
import torch.nn.functional as F

logging.basicConfig(level=logging.INFO, format="%(message)s")
logging.captureWarnings(True)
logging.getLogger("py.warnings").setLevel(logging.ERROR)
torch.set_num_threads(1)
torch.manual_seed(9)

STEPS = 4000
ROWS = 200_000

features = torch.randn(ROWS, 40)
weights = torch.randn(40) / 6
model = nn.Sequential(nn.Linear(40, 96), nn.SiLU(), nn.Linear(96, 1))
optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)


def check_rows(step, rows, x):
    far = rows[x.abs().amax(dim=1) > 2.2]
    if len(far):
        warnings.warn(f"step {step}: {len(far)} rows lie outside the fitted range: {far.tolist()}")


for step in range(1, STEPS + 1):
    rows = torch.randint(0, ROWS, (2400,))
    x = features[rows]
    check_rows(step, rows, x)
    loss = F.smooth_l1_loss(model(x).squeeze(1), torch.sin(x @ weights))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 400 == 0:
        logging.info("step %d loss %.4f", step, loss.item())
