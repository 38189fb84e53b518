"""Train a small 1-d convolutional encoder on audio clips of many lengths."""
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)

CHANNELS, BATCH, STEPS, LENGTHS = 32, 6, 5000, 24


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([
            nn.Conv1d(1, CHANNELS, 9, stride=4, padding=4),
            nn.Conv1d(CHANNELS, CHANNELS * 2, 7, stride=3, padding=3),
            nn.Conv1d(CHANNELS * 2, CHANNELS * 2, 5, stride=2, padding=2),
        ])
        self.out = nn.Linear(CHANNELS * 2, 12)

    def forward(self, wave):
        for layer in self.layers:
            wave = torch.relu(layer(wave))
        return self.out(wave.mean(dim=2))


def main():
    lengths = [600 + 170 * i for i in range(LENGTHS)]
    model = Encoder()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(1, STEPS + 1):
        length = lengths[torch.randint(0, LENGTHS, ()).item()]
        labels = torch.randint(0, 12, (BATCH,))
        time = torch.arange(length) / 100.0
        wave = torch.sin(time[None] * (1 + labels[:, None])) + 0.3 * torch.randn(BATCH, length)
        loss = nn.functional.cross_entropy(model(wave[:, None]), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 500 == 0:
            print(f"step {step} length {length} loss {loss.item():.3f}", flush=True)


if __name__ == "__main__":
    main()
