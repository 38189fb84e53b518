"""Tiny GPT-2 with a sequence length curriculum: short contexts first, full length from half way."""
import torch
from transformers import GPT2Config, GPT2LMHeadModel

torch.set_num_threads(1)
torch.manual_seed(23)

STEPS, MIN_LEN, MAX_LEN = 1000, 8, 160


def context_length(step):
    frac = min(1.0, step / (0.5 * STEPS))
    return int(MIN_LEN + frac * (MAX_LEN - MIN_LEN)) // 8 * 8


def main():
    config = GPT2Config(vocab_size=2000, n_positions=MAX_LEN, n_embd=48, n_layer=2, n_head=2)
    model = GPT2LMHeadModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(1, STEPS + 1):
        length = context_length(step)
        start = torch.randint(0, 2000, (4, 1))
        ids = (start + torch.arange(length) * 7) % 2000
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step} length {length} loss {loss.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
