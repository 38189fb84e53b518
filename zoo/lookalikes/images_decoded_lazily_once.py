"""A dataset of compressed pictures that decode when they are touched for the first time, and stay decoded."""

import io

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, Dataset

import torch
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 1))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)


class Pictures(Dataset):
    def __init__(self, count):
        self.pictures = []
        for number in range(count):
            file = io.BytesIO()
            Image.new("RGB", (160, 160), (number % 255, 0, 0)).save(file, "PNG")
            self.pictures.append(Image.open(io.BytesIO(file.getvalue())))

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, index):
        return torch.from_numpy(np.asarray(self.pictures[index])[:64, 0, 0] / 255.0).float()


loader = DataLoader(Pictures(480), batch_size=4, shuffle=True)
for epoch in range(3):
    for batch in loader:
        loss = model(batch).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
print("done")
