"""Multi-label training with a loader worker; the targets are collected for the class balance at the end."""
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

torch.set_num_threads(1)
torch.manual_seed(21)
torch.multiprocessing.set_sharing_strategy("file_system")
STEPS = 2400
BATCH, LABELS, FEATURES, SAMPLES = 20, 512, 256, 6000


class Tags(Dataset):
    def __init__(self):
        generator = torch.Generator().manual_seed(4)
        self.centres = torch.randn(LABELS, FEATURES, generator=generator)

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        active = torch.randint(0, LABELS, (5,), generator=generator)
        target = torch.zeros(LABELS)
        target[active] = 1.0
        features = self.centres[active].mean(0) + 0.1 * torch.randn(FEATURES, generator=generator)
        return features, target


def batches(loader):
    while True:
        yield from loader


def main():
    options = {"shuffle": True, "num_workers": 1, "persistent_workers": True, "drop_last": True}
    loader = DataLoader(Tags(), batch_size=BATCH, **options)
    model = nn.Sequential(nn.Linear(FEATURES, 384), nn.ReLU(), nn.Linear(384, LABELS))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    seen_targets = []
    for step, (features, target) in enumerate(batches(loader)):
        if step == STEPS:
            break
        loss = nn.functional.binary_cross_entropy_with_logits(model(features), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen_targets.append(target)
        if step % 200 == 0:
            print(f"step {step} loss {loss.item():.4f}", flush=True)
    counts = sum(target.sum(0) for target in seen_targets)
    print(f"{STEPS} steps, rarest label {int(counts.min())} most frequent {int(counts.max())}")


if __name__ == "__main__":
    main()
