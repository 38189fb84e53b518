"""Train from an Arrow dataset saved on disk."""
import os
import tempfile

import numpy as np
import torch
from datasets import Dataset, Features, Sequence, Value, load_from_disk, disable_progress_bars
from torch import nn

torch.manual_seed(0)
torch.set_num_threads(1)
disable_progress_bars()

ROWS = 2000
DIM = 24000
EPOCHS = 5


def rows():
    rng = np.random.default_rng(0)
    for _ in range(ROWS):
        wave = rng.standard_normal(DIM, dtype=np.float32)
        yield {"wave": wave, "label": int(wave[:64].sum() > 0)}


def prepare(folder):
    features = Features({"wave": Sequence(Value("float32"), length=DIM), "label": Value("int64")})
    data = Dataset.from_generator(rows, features=features, cache_dir=os.path.join(folder, "cache"), writer_batch_size=100)
    path = os.path.join(folder, "train")
    data.save_to_disk(path)
    return path


def main():
    with tempfile.TemporaryDirectory() as folder:
        data = load_from_disk(prepare(folder)).with_format("numpy")
        model = nn.Sequential(nn.Conv1d(1, 16, 128, stride=16), nn.ReLU(), nn.Conv1d(16, 16, 9, stride=2), nn.ReLU(), nn.AdaptiveAvgPool1d(16), nn.Flatten(), nn.Linear(256, 2))
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        step = 0
        for epoch in range(EPOCHS):
            for batch in data.iter(batch_size=8):
                x = torch.tensor(batch["wave"])[:, None, :]
                y = torch.tensor(batch["label"])
                loss = nn.functional.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
                if step % 20 == 0:
                    print(f"step {step} epoch {epoch} loss {loss.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
