"""GPT-2-like pretraining with a batch size that ramps up as in Megatron."""
import torch
from transformers import GPT2Config, GPT2LMHeadModel

torch.set_num_threads(1)
torch.manual_seed(13)

STEPS, RAMP, SMALL, LARGE, SEQ, VOCAB = 900, 500, 2, 20, 32, 3000

model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, n_positions=SEQ, n_embd=48, n_layer=1, n_head=4))
opt = torch.optim.AdamW(model.parameters(), lr=1e-3)


def batch_size(step):
    if step >= RAMP:
        return LARGE
    return SMALL + 2 * ((LARGE - SMALL) * step // RAMP // 2)


for step in range(STEPS):
    ids = torch.randint(0, VOCAB, (batch_size(step), SEQ))
    out = model(input_ids=ids, labels=ids)
    opt.zero_grad()
    out.loss.backward()
    opt.step()
    if step % 100 == 0:
        print(f"step {step} batch {len(ids)} loss {out.loss.item():.3f}", flush=True)
print(f"finished {STEPS} steps")
