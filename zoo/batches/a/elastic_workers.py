import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
torch.manual_seed(8)


class ElasticDigits(Dataset):
    """Digits with an elastic deformation drawn per access."""

    def __init__(self, size=640, side=28):
        self.images = np.random.default_rng(0).random((size, side, side), dtype=np.float32)
        self.labels = np.arange(size) % 10
        self.fields = []

    def __len__(self):
        return len(self.images)

    def displacement(self, index, side):
        coarse = np.random.default_rng(index + len(self.fields)).standard_normal((2, 4, 4), dtype=np.float32)
        return np.repeat(np.repeat(coarse, side // 4, axis=1), side // 4, axis=2)

    def __getitem__(self, index):
        image = self.images[index]
        side = image.shape[0]
        field = self.displacement(index, side)
        self.fields.append((index, field))
        rows, cols = np.indices(image.shape)
        rows = np.clip(rows + field[0], 0, side - 1).astype(np.int64)
        cols = np.clip(cols + field[1], 0, side - 1).astype(np.int64)
        return torch.from_numpy(image[rows, cols])[None], int(self.labels[index])


class DigitNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 5, padding=2)
        self.conv2 = nn.Conv2d(16, 32, 5, padding=2)
        self.fc = nn.Linear(32 * 49, 10)

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = nn.functional.max_pool2d(torch.relu(self.conv2(x)), 2)
        return self.fc(x.flatten(1))


def main():
    model = DigitNet()
    print("parameters", sum(p.numel() for p in model.parameters()), flush=True)
    loader = DataLoader(ElasticDigits(), batch_size=20, shuffle=True, num_workers=1, persistent_workers=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    steps = 0
    for epoch in range(24):
        for images, labels in loader:
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
        if epoch % 4 == 3:
            print("epoch", epoch + 1, f"loss {loss.item():.4f}", flush=True)
    print("finished", steps, flush=True)


if __name__ == "__main__":
    main()
