"""Text hashing model fed by one lasting worker from a plain Python list of records."""
import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(17)

RECORDS, BATCH, EPOCHS = 330_000, 150, 2


class Records(torch.utils.data.Dataset):
    def __init__(self, n):
        self.records = [f"{i:09d} " + "abcdefghij"[i % 10] * 170 for i in range(n)]

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        return self.records[index]


def collate(records):
    ids = torch.tensor([[ord(c) for c in r[:12]] for r in records], dtype=torch.float32)
    return ids / 128, torch.tensor([ord(r[10]) - 97 for r in records])


def main():
    loader = torch.utils.data.DataLoader(Records(RECORDS), batch_size=BATCH, num_workers=1, persistent_workers=True, collate_fn=collate, multiprocessing_context="fork")
    model = nn.Sequential(nn.Linear(12, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    step = 0
    for epoch in range(EPOCHS):
        for x, y in loader:
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if step % 440 == 0:
                print(f"epoch {epoch} step {step} loss {loss.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
