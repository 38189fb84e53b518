"""One LoRA adapter per client on a shared encoder; each is trained, scored and deleted."""
import torch
import torch.nn as nn
from peft import LoraConfig, get_peft_model

torch.set_num_threads(1)
torch.manual_seed(0)


class Encoder(nn.Module):
    def __init__(self, dim=512):
        super().__init__()
        self.up = nn.Linear(64, dim)
        self.mid = nn.Linear(dim, dim)
        self.down = nn.Linear(dim, 10)

    def forward(self, x):
        return self.down(torch.relu(self.mid(torch.relu(self.up(x)))))


def lora():
    return LoraConfig(r=64, lora_alpha=64, target_modules=["up", "mid", "down"])


model = get_peft_model(Encoder(), lora(), adapter_name="warmup")
results = {}
for client in range(40):
    name = f"client_{client}"
    model.add_adapter(name, lora())
    model.set_adapter(name)
    opt = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    proj = torch.randn(64, 10)
    for step in range(60):
        x = torch.randn(160, 64)
        loss = nn.functional.cross_entropy(model(x), (x @ proj).argmax(1))
        opt.zero_grad()
        loss.backward()
        opt.step()
    results[name] = loss.item()
    model.set_adapter("warmup")
    model.delete_adapter(name)
    del opt
    if client % 4 == 0:
        print(f"{name} loss {results[name]:.3f} adapters {list(model.peft_config)}", flush=True)
