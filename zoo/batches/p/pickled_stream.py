"""Language-model run that streams one record per step to a replay file."""
import os
import pickle
import tempfile

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(0)

VOCAB, SEQ, BATCH, STEPS = 3000, 48, 16, 1600


class TinyLM(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(VOCAB, 48)
        self.rnn = nn.GRU(48, 64, batch_first=True)
        self.out = nn.Linear(64, 600)

    def forward(self, ids):
        h, _ = self.rnn(self.emb(ids))
        return self.out(h)


class ReplayWriter:
    """Appends records to one file; readers call pickle.load in a loop."""

    def __init__(self, path):
        self.file = open(path, "wb")
        self.pickler = pickle.Pickler(self.file, protocol=5)

    def write(self, record):
        self.pickler.dump(record)

    def close(self):
        self.file.close()


def main():
    folder = tempfile.TemporaryDirectory()
    writer = ReplayWriter(os.path.join(folder.name, "replay.pkl"))
    model = TinyLM()
    opt = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(STEPS):
        ids = torch.randint(600, VOCAB, (BATCH, SEQ + 1))
        logits = model(ids[:, :-1])
        nll = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten() % 600, reduction="none")
        loss = nll.mean()
        opt.zero_grad(set_to_none=True)
        loss.backward()
        opt.step()
        record = {"step": step, "ids": ids.tolist(), "nll": nll.detach().view(BATCH, SEQ).tolist()}
        writer.write(record)
        if step % 200 == 0:
            print(f"step {step} loss {loss.item():.3f}", flush=True)
    writer.close()
    print(f"finished {STEPS} steps")


if __name__ == "__main__":
    main()
