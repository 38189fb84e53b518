import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
torch.manual_seed(7)


class Volumes(Dataset):
    """Synthetic scans; building one is slow, so workers keep what they have built."""

    def __init__(self, count=160, size=40):
        self.count, self.size = count, size
        self.built = {}

    def __len__(self):
        return self.count

    def build(self, index):
        rng = np.random.default_rng(index)
        grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, self.size)] * 3), axis=0).astype(np.float32)
        centre = rng.uniform(-0.5, 0.5, (3, 1, 1, 1)).astype(np.float32)
        ball = (((grid - centre) ** 2).sum(0) < rng.uniform(0.05, 0.4)).astype(np.float32)
        for _ in range(3):
            ball = (ball + np.roll(ball, 1, 0) + np.roll(ball, 1, 1) + np.roll(ball, 1, 2)) / 4
        return ball + 0.1 * rng.standard_normal(ball.shape, dtype=np.float32)

    def __getitem__(self, index):
        if index not in self.built:
            self.built[index] = self.build(index)
        volume = self.built[index]
        side = np.random.randint(0, self.size - 24)
        return torch.from_numpy(volume[side:side + 24, :24, side:side + 24].copy()), float(volume.mean())


def main():
    loader = DataLoader(Volumes(), batch_size=8, shuffle=True, num_workers=2, persistent_workers=True)
    net = nn.Sequential(
        nn.Conv3d(1, 8, 5, stride=2), nn.ReLU(), nn.Conv3d(8, 16, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(16, 1),
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    steps = 0
    for epoch in range(75):
        for crops, means in loader:
            loss = (net(crops[:, None]).squeeze(1) - means.float()).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
        if epoch % 5 == 0:
            print(f"epoch {epoch} loss {loss.item():.5f}")
    print(f"{steps} steps")


if __name__ == "__main__":
    main()
