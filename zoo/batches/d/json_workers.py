"""Text classifier fed by DataLoader workers that read a long list of JSON records."""
import json
import random

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

WORDS = [f"w{i:04d}" for i in range(2000)]


class Records(Dataset):
    def __init__(self, count):
        rng = random.Random(15)
        self.lines = []
        for _ in range(count):
            label = rng.randrange(3)
            words = rng.choices(WORDS[300 * label:300 * label + 1200], k=60)
            self.lines.append(json.dumps({"label": label, "words": " ".join(words)}))

    def __len__(self):
        return len(self.lines)

    def __getitem__(self, i):
        record = json.loads(self.lines[i])
        return torch.tensor([int(w[1:]) for w in record["words"].split()]), record["label"]


class BagOfWords(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag, self.head = nn.EmbeddingBag(len(WORDS), 64), nn.Linear(64, 3)

    def forward(self, words):
        return self.head(self.bag(words))


def main():
    torch.set_num_threads(1)
    torch.manual_seed(15)
    loader = DataLoader(Records(60_000), batch_size=64, shuffle=True, num_workers=2, persistent_workers=True)
    model = BagOfWords()
    opt = torch.optim.Adagrad(model.parameters(), lr=0.05)
    steps = 0
    for epoch in range(5):
        right = seen = 0
        for words, label in loader:
            scores = model(words)
            loss = nn.functional.cross_entropy(scores, label)
            opt.zero_grad()
            loss.backward()
            opt.step()
            right, seen, steps = right + int((scores.argmax(1) == label).sum()), seen + len(label), steps + 1
        print(f"epoch {epoch}: {right / seen:.3f}")
    print(f"{steps} steps")


if __name__ == "__main__":
    main()
