"""Train on captions held as plain Python records, read by forked loader workers."""
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
torch.manual_seed(0)

RECORDS, EPOCHS, BATCH, WIDTH = 40_000, 18, 512, 256


class Captions(Dataset):
    def __init__(self):
        rng = np.random.default_rng(0)
        self.records = [
            {"id": f"caption-{i:07d}", "words": rng.integers(1000, 9000, 24).tolist(), "label": i % 10}
            for i in range(RECORDS)
        ]

    def __len__(self):
        return len(self.records)

    def __getitem__(self, i):
        record = self.records[i]
        words = torch.tensor(record["words"])
        return words % 1000 + record["label"], record["label"]


def main():
    data = Captions()
    loader = DataLoader(data, batch_size=BATCH, shuffle=True, num_workers=1, persistent_workers=True)
    model = nn.Sequential(nn.EmbeddingBag(1100, WIDTH), nn.Linear(WIDTH, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    step = 0
    for epoch in range(EPOCHS):
        for words, labels in loader:
            loss = nn.functional.cross_entropy(model(words), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
        print(f"step {step} epoch {epoch + 1} loss {loss.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
