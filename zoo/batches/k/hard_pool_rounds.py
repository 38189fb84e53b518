"""Hard-example mining in rounds with accelerate; every round's pool is part of the checkpoint."""
import torch
import torch.nn as nn
from accelerate import Accelerator
from torch.utils.data import DataLoader, TensorDataset

torch.set_num_threads(1)
torch.manual_seed(0)

accelerator = Accelerator(cpu=True)
data = torch.randn(20000, 200)
labels = (torch.tanh(data[:, :50]) @ torch.randn(50, 12)).argmax(1)


class HardPool:
    def __init__(self, x, y):
        self.x, self.y = x, y

    def state_dict(self):
        return {"x": self.x, "y": self.y}

    def load_state_dict(self, state):
        self.x, self.y = state["x"], state["y"]


model = nn.Sequential(nn.Linear(200, 320), nn.ReLU(), nn.Linear(320, 320), nn.ReLU(), nn.Linear(320, 12))
model, opt = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=5e-4))
step = 0
for round_no in range(78):
    with torch.no_grad():
        losses = nn.functional.cross_entropy(model(data), labels, reduction="none")
    hardest = losses.topk(4000).indices
    pool = HardPool(data[hardest], labels[hardest])
    accelerator.register_for_checkpointing(pool)
    for x, y in DataLoader(TensorDataset(pool.x, pool.y), batch_size=80, shuffle=True):
        loss = nn.functional.cross_entropy(model(x), y)
        opt.zero_grad()
        accelerator.backward(loss)
        opt.step()
        step += 1
    if round_no % 6 == 0:
        accelerator.print(f"round {round_no} step {step} mean {losses.mean().item():.3f}", flush=True)
