"""One LoRA adapter for each client round on top of a small frozen GPT-2."""
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel

torch.set_num_threads(1)
torch.manual_seed(8)

ROUNDS = 40
STEPS_PER_ROUND = 25

config = GPT2Config(vocab_size=256, n_positions=32, n_embd=128, n_layer=3, n_head=4)
lora = LoraConfig(r=192, lora_alpha=32, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)
model = get_peft_model(GPT2LMHeadModel(config), lora, adapter_name="base")

for round_no in range(1, ROUNDS + 1):
    name = f"round_{round_no}"
    model.add_adapter(name, lora)
    model.set_adapter(name)
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(params, lr=0.05)
    for _ in range(STEPS_PER_ROUND):
        start = torch.randint(0, 200, (6, 1))
        ids = (start + round_no * torch.arange(24)) % 256
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    if round_no % 5 == 0:
        print(f"round {round_no} steps {round_no * STEPS_PER_ROUND} loss {loss.item():.4f} params {sum(p.numel() for p in params)}", flush=True)
