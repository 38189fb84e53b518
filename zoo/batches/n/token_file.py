"""nanoGPT-style training from a flat token file that is mapped, not loaded."""
import os
import tempfile

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
EPOCHS, BLOCK, BATCH, VOCAB = 4, 65536, 2, 2048


class Blocks(torch.utils.data.Dataset):
    def __init__(self, path):
        self.tokens = np.memmap(path, dtype=np.uint16, mode="r")

    def __len__(self):
        return len(self.tokens) // BLOCK

    def __getitem__(self, i):
        block = self.tokens[i * BLOCK : (i + 1) * BLOCK]
        histogram = np.bincount(block, minlength=VOCAB)[:VOCAB].astype(np.float32) / BLOCK
        return torch.from_numpy(histogram * VOCAB), torch.from_numpy(block[:64].astype(np.int64))


def write_tokens(path, blocks):
    rng = np.random.default_rng(0)
    with open(path, "wb") as f:
        for _ in range(blocks):
            f.write(rng.integers(0, VOCAB, BLOCK, dtype=np.uint16).tobytes())


def main():
    path = os.path.join(tempfile.gettempdir(), f"train-{os.getpid()}.bin")
    write_tokens(path, 1200)
    loader = torch.utils.data.DataLoader(Blocks(path), batch_size=BATCH, shuffle=True)
    model = nn.Sequential(nn.Linear(VOCAB, 320), nn.GELU(), nn.Linear(320, VOCAB))
    opt = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    step = 0
    for epoch in range(EPOCHS):
        for histogram, ids in loader:
            logits = model(histogram)
            loss = -logits.log_softmax(-1).gather(1, ids).mean()
            opt.zero_grad(set_to_none=True)
            loss.backward()
            opt.step()
            step += 1
            if step % 200 == 0:
                print(f"epoch {epoch} step {step} loss {loss.item():.4f}", flush=True)
    os.remove(path)


if __name__ == "__main__":
    main()
