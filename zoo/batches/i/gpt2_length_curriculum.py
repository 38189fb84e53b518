"""Tiny GPT-2 trained with a sequence-length curriculum."""
import torch
from transformers import GPT2Config, GPT2LMHeadModel

torch.manual_seed(0)
torch.set_num_threads(1)

STEPS = 1000
MIN_LEN, MAX_LEN = 16, 224


def length_at(step):
    done = min(1.0, step / (0.45 * STEPS))
    return 8 * round((MIN_LEN + (MAX_LEN - MIN_LEN) * done) / 8)


def main():
    config = GPT2Config(vocab_size=3000, n_positions=MAX_LEN, n_embd=32, n_layer=4, n_head=2)
    model = GPT2LMHeadModel(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(1, STEPS + 1):
        length = length_at(step)
        start = torch.randint(0, 3000, (4, 1))
        tokens = (start + 7 * torch.arange(length)) % 3000
        loss = model(input_ids=tokens, labels=tokens).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 30 == 0:
            print(f"step {step} length {length} loss {loss.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
