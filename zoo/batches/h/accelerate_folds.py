"""Repeated cross-validation with one Accelerator for all folds."""
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.set_num_threads(1)
torch.manual_seed(7)

FOLDS = 50


def build():
    return nn.Sequential(nn.Linear(96, 512), nn.ReLU(), nn.Linear(512, 640), nn.ReLU(), nn.Linear(640, 4))


def main():
    accelerator = Accelerator(cpu=True)
    x = torch.randn(4000, 96)
    y = (x[:, :4] + 0.3 * torch.randn(4000, 4)).argmax(1)
    scores = []
    for fold in range(FOLDS):
        perm = torch.randperm(len(x))
        train, test = perm[:1920], perm[3600:]
        model = build()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        loader = DataLoader(TensorDataset(x[train], y[train]), batch_size=32, shuffle=True)
        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        for xb, yb in loader:
            loss = nn.functional.cross_entropy(model(xb), yb)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
        with torch.no_grad():
            scores.append((model(x[test]).argmax(1) == y[test]).float().mean().item())
        if (fold + 1) % 5 == 0:
            accelerator.print(f"fold {fold + 1} accuracy {sum(scores) / len(scores):.3f}", flush=True)


if __name__ == "__main__":
    main()
