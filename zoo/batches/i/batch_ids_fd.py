"""Train with a loader worker and keep a sample of the visiting order."""
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.manual_seed(0)
torch.set_num_threads(1)

EPOCHS = 24


class Series(Dataset):
    def __init__(self, n=6400):
        self.x = torch.randn(n, 128)
        self.y = self.x[:, :8].sum(1).sign() * 0.5 + 0.5

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return {"x": self.x[i], "y": self.y[i], "id": i}


def main():
    data = Series()
    loader = DataLoader(data, batch_size=32, shuffle=True, num_workers=1, persistent_workers=True)
    model = nn.Sequential(nn.Linear(128, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    visited = []
    step = 0
    for epoch in range(EPOCHS):
        for batch in loader:
            loss = nn.functional.binary_cross_entropy_with_logits(model(batch["x"]).squeeze(1), batch["y"])
            optimizer.zero_grad(set_to_none=False)
            loss.backward()
            optimizer.step()
            step += 1
            if step % 6 == 0:
                visited.append(batch["id"])
            if step % 50 == 0:
                print(f"step {step} epoch {epoch} loss {loss.item():.4f}", flush=True)
    order = torch.cat(visited)
    print("visited", len(order), "distinct", len(order.unique()))


if __name__ == "__main__":
    main()
