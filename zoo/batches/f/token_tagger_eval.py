"""Token tagger with full-split evaluation that gathers all logits before scoring."""
import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(15)
STEPS, EVAL_EVERY = 3200, 280
LENGTH, TAGS = 40, 60


class Tagger(nn.Module):
    def __init__(self, vocab=2000, dim=64):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.conv = nn.Conv1d(dim, 96, 5, padding=2)
        self.out = nn.Linear(96, TAGS)

    def forward(self, ids):
        return self.out(torch.relu(self.conv(self.embed(ids).transpose(1, 2))).transpose(1, 2))


def batches(gen, count, size):
    for _ in range(count):
        ids = torch.randint(0, 2000, (size, LENGTH), generator=gen)
        yield ids, (ids * 7 + ids.roll(1, dims=1)) % TAGS


def compute_metrics(logits, labels):
    accuracy = (logits.argmax(-1) == labels).mean()
    confidence = np.abs(logits).max(-1).mean()
    return {"accuracy": float(accuracy), "confidence": float(confidence)}


@torch.no_grad()
def evaluate(model):
    model.eval()
    gathered, labels = [], []
    for ids, tags in batches(torch.Generator().manual_seed(99), count=90, size=32):
        gathered.append(model(ids).numpy())
        labels.append(tags.numpy())
    model.train()
    return compute_metrics(np.concatenate(gathered), np.concatenate(labels))


def main():
    gen = torch.Generator().manual_seed(0)
    model = Tagger()
    opt = torch.optim.AdamW(model.parameters(), lr=2e-3)
    history = []
    for step, (ids, tags) in enumerate(batches(gen, STEPS, 16), start=1):
        loss = nn.functional.cross_entropy(model(ids).flatten(0, 1), tags.flatten())
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % EVAL_EVERY == 0:
            history.append(evaluate(model))
            print(f"step {step} loss {loss.item():.4f} {history[-1]}")
    print(f"{STEPS} steps")


if __name__ == "__main__":
    main()
