"""Fine-tune a small text classifier with a gradient penalty on the word embeddings.

The penalty keeps the class score smooth around each embedded sentence, as in
the virtual adversarial training recipes.
"""
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)

VOCAB, DIM, LENGTH, BATCH, CLASSES = 2000, 64, 40, 32, 4
STEPS = 2400


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(VOCAB, DIM)
        self.body = nn.Sequential(nn.Linear(DIM, 192), nn.Tanh(), nn.Linear(192, 192), nn.Tanh())
        self.out = nn.Linear(192, CLASSES)

    def score(self, embedded):
        return self.out(self.body(embedded).mean(dim=1))

    def forward(self, tokens):
        return self.score(self.words(tokens))


def smoothness(model, tokens, labels):
    probe = model.words(tokens).detach().requires_grad_(True)
    score = model.score(probe).gather(1, labels[:, None]).sum()
    score.backward(create_graph=True, inputs=[probe])
    return probe.grad.pow(2).sum(dim=(1, 2)).mean()


def main():
    model = Classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    centers = torch.randint(0, VOCAB, (CLASSES, 200))
    for step in range(1, STEPS + 1):
        labels = torch.randint(0, CLASSES, (BATCH,))
        tokens = torch.stack([centers[y][torch.randint(0, 200, (LENGTH,))] for y in labels])
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(tokens), labels)
        penalty = smoothness(model, tokens[:4], labels[:4])
        (loss + 0.1 * penalty).backward()
        optimizer.step()
        if step % 240 == 0:
            print(f"step {step} loss {loss.item():.3f} penalty {penalty.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
