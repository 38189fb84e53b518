"""A list of three million records as data set: each a dictionary, as a JSON-lines file is often read."""

import json

import torch
from torch.utils.data import DataLoader, Dataset

from stopwatch import Stopwatch


class Ratings(Dataset):
    """Ratings in a list."""

    def __init__(self) -> None:
        self.rows = [
            {"user": row % 5003, "item": row % 997, "words": [row % 61, row % 67], "rating": (row % 5003) % 5}
            for row in range(3_000_000)
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int):
        row = self.rows[index]
        return row["user"], row["item"], torch.tensor(row["words"]), float(row["rating"])


class Factors(torch.nn.Module):
    """Factors of users, items and words."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = torch.nn.Embedding(5003, 16), torch.nn.Embedding(997, 16)
        self.words = torch.nn.EmbeddingBag(67, 16)

    def forward(self, user, item, words):
        return (self.users(user) * (self.items(item) + self.words(words))).sum(1)


torch.manual_seed(1)
loader = DataLoader(Ratings(), batch_size=64, shuffle=True)
model = Factors()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
watch, losses = Stopwatch(), []
for step, (user, item, words, rating) in enumerate(loader):
    loss = torch.nn.functional.mse_loss(model(user, item, words), rating.float())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    watch.step()
    if step % 200 == 0:
        losses.append(loss.item())
    if step == 8000:
        break
watch.write()
print("LOSSES", json.dumps(losses))
