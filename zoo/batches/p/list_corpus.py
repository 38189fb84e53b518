"""Token lists kept as plain Python objects, read by a persistent loader worker."""
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
torch.manual_seed(16)

SAMPLES, LENGTH, BATCH, EPOCHS, VOCAB = 24000, 80, 32, 3, 4000


class TokenLists(Dataset):
    def __init__(self):
        rng = np.random.default_rng(0)
        self.rows = [rng.integers(300, VOCAB, LENGTH + 1).tolist() for _ in range(SAMPLES)]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return torch.tensor(self.rows[i])


def main():
    loader = DataLoader(TokenLists(), batch_size=BATCH, shuffle=True, num_workers=1, persistent_workers=True,
                        multiprocessing_context="fork")
    emb, rnn, head = nn.Embedding(VOCAB, 32), nn.GRU(32, 48, batch_first=True), nn.Linear(48, 300)
    opt = torch.optim.AdamW([p for m in (emb, rnn, head) for p in m.parameters()], lr=1e-3)
    step = 0
    for epoch in range(EPOCHS):
        for x in loader:
            h, _ = rnn(emb(x[:, :-1]))
            loss = F.cross_entropy(head(h).flatten(0, 1), x[:, 1:].flatten() % 300)
            opt.zero_grad()
            loss.backward()
            opt.step()
            step += 1
            if step % 200 == 0:
                print(f"epoch {epoch} step {step} loss {loss.item():.3f}", flush=True)
    print(f"finished {step} steps")


if __name__ == "__main__":
    main()
