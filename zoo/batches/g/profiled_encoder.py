"""A small encoder trained with the profiler on; the table of operators is printed for the first steps."""
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

torch.set_num_threads(1)
torch.manual_seed(14)
STEPS = 1600
WIDTH, TOKENS, CLASSES = 64, 16, 8


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 128, dropout=0.0, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        return self.head(self.body(x).mean(1))


def main():
    model = Encoder()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    teacher = torch.randn(WIDTH, CLASSES)
    profiler = profile(activities=[ProfilerActivity.CPU], record_shapes=True)
    profiler.start()
    for step in range(STEPS):
        x = torch.randn(8, TOKENS, WIDTH)
        y = (x.mean(1) @ teacher).argmax(1)
        with record_function("forward"):
            loss = nn.functional.cross_entropy(model(x), y)
        with record_function("backward"):
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
        profiler.step()
        if step % 100 == 0:
            print(f"step {step} loss {loss.item():.4f}", flush=True)
    print(f"{STEPS} steps", flush=True)


if __name__ == "__main__":
    main()
