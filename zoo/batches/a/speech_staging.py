import math
import random

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(19)
random.seed(19)
MELS, LONGEST, STEPS = 80, 2600, 1500


class StagingArea:
    """One flat area that batches are padded into; it is enlarged when a batch does not fit."""

    def __init__(self):
        self.area = torch.empty(0)

    def pad(self, utterances):
        longest = max(u.shape[0] for u in utterances)
        wanted = len(utterances) * longest * MELS
        if wanted > self.area.numel():
            self.area = torch.empty(wanted)
        batch = self.area[:wanted].view(len(utterances), longest, MELS)
        batch.zero_()
        for row, utterance in zip(batch, utterances):
            row[:utterance.shape[0]] = utterance
        return batch


class UtteranceSource:
    def __init__(self):
        self.noise = torch.randn(LONGEST, MELS)

    def batch(self, step, count=48):
        spread = 0.25 + 0.75 * min(1.0, step / 900)
        lengths = [min(LONGEST, int(math.exp(random.gauss(5.3, 0.55 * spread)))) for _ in range(count)]
        return [self.noise[:n] for n in lengths], torch.tensor([n % 2 for n in lengths])


def main():
    staging, source = StagingArea(), UtteranceSource()
    model = nn.Sequential(nn.Linear(2 * MELS, 128), nn.ReLU(), nn.Linear(128, 2))
    print("parameters", sum(p.numel() for p in model.parameters()), flush=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(1, STEPS + 1):
        utterances, labels = source.batch(step)
        padded = staging.pad(utterances)
        pooled = torch.cat([padded.mean(1), padded.amax(1)], dim=1)
        loss = nn.functional.cross_entropy(model(pooled), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 250 == 0:
            print(step, tuple(padded.shape), f"{loss.item():.4f}", staging.area.numel() * 4 >> 20, "MiB", flush=True)
    print("finished", STEPS, flush=True)


if __name__ == "__main__":
    main()
