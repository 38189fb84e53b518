"""Fine-tune a small GPT-2 with gradual unfreezing, top block first (ULMFiT)."""
import torch
from transformers import GPT2Config, GPT2LMHeadModel

torch.set_num_threads(1)
torch.manual_seed(0)
STEPS, UNFREEZE_EVERY, LAYERS, WIDTH = 1000, 65, 8, 256


def main():
    config = GPT2Config(vocab_size=512, n_positions=32, n_embd=WIDTH, n_layer=LAYERS, n_head=4, bos_token_id=0, eos_token_id=0)
    model = GPT2LMHeadModel(config)
    model.train()
    for p in model.parameters():
        p.requires_grad_(False)
    for p in model.transformer.ln_f.parameters():
        p.requires_grad_(True)
    opt = torch.optim.AdamW(model.transformer.ln_f.parameters(), lr=3e-4)
    frozen = list(model.transformer.h)
    for step in range(1, STEPS + 1):
        if frozen and step % UNFREEZE_EVERY == 0:
            block = frozen.pop()
            for p in block.parameters():
                p.requires_grad_(True)
            opt.add_param_group({"params": list(block.parameters())})
        start = torch.randint(0, 400, (2, 1))
        ids = (start + 3 * torch.arange(14)) % 512
        loss = model(input_ids=ids, labels=ids).loss
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        if step % 100 == 0:
            print(f"step {step} frozen blocks {len(frozen)} loss {loss.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
