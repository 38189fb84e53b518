"""CTC-like frame classifier fed by a loader worker that does speed perturbation."""
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
torch.manual_seed(0)
EPOCHS = 16
FRAMES, BINS = 24, 40


class Utterances(Dataset):
    def __init__(self, count=2400, seed=0):
        rng = np.random.default_rng(seed)
        self.raw = rng.standard_normal((count, FRAMES + 8, BINS), dtype=np.float32)
        self.labels = rng.integers(0, 12, size=count)
        self.features = {}

    def __len__(self):
        return len(self.labels)

    def resample(self, index, speed):
        key = (index, speed)
        if key not in self.features:
            positions = np.clip(np.arange(FRAMES) * speed, 0, FRAMES + 7).astype(np.int64)
            spectrum = self.raw[index][positions] - self.raw[index].mean(0)
            self.features[key] = spectrum
        return self.features[key]

    def __getitem__(self, index):
        speed = float(torch.empty(()).uniform_(0.9, 1.1))
        return torch.from_numpy(self.resample(index, speed)), int(self.labels[index])


class FrameNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(BINS, 96, 5, padding=2)
        self.rnn = nn.GRU(96, 64, batch_first=True)
        self.out = nn.Linear(64, 12)

    def forward(self, x):
        h = torch.relu(self.conv(x.transpose(1, 2))).transpose(1, 2)
        return self.out(self.rnn(h)[0].mean(1))


def main():
    loader = DataLoader(Utterances(), batch_size=16, shuffle=True, num_workers=1, persistent_workers=True)
    net = FrameNet()
    opt = torch.optim.Adam(net.parameters(), lr=1e-3)
    steps = 0
    for epoch in range(EPOCHS):
        total = 0.0
        for feats, labels in loader:
            loss = nn.functional.cross_entropy(net(feats), labels)
            opt.zero_grad()
            loss.backward()
            opt.step()
            total += loss.item()
            steps += 1
        print(f"epoch {epoch} loss {total / len(loader):.4f}")
    print(f"{steps} steps")


if __name__ == "__main__":
    main()
