"""A set encoder trained with the profiler on for the whole run; the table of operators is printed at the end."""
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

torch.set_num_threads(1)
torch.manual_seed(14)
STEPS = 1800
WIDTH, ITEMS, CLASSES = 96, 64, 8


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.items = nn.Sequential(nn.Linear(WIDTH, 256), nn.ReLU(), nn.Linear(256, 256))
        self.head = nn.Linear(256, CLASSES)

    def forward(self, x):
        return self.head(self.items(x).amax(1))


def main():
    model = Encoder()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    teacher = torch.randn(WIDTH, CLASSES)
    profiler = profile(activities=[ProfilerActivity.CPU])
    profiler.start()
    for step in range(STEPS):
        x = torch.randn(8, ITEMS, WIDTH)
        y = (x.mean(1) @ teacher).argmax(1)
        with record_function("forward"):
            loss = nn.functional.cross_entropy(model(x), y)
        with record_function("backward"):
            optimizer.zero_grad()
            loss.backward()
        optimizer.step()
        profiler.step()
        if step % 150 == 0:
            print(f"step {step} loss {loss.item():.4f}", flush=True)
    print(f"{STEPS} steps", flush=True)
    profiler.stop()
    print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=8, max_name_column_width=40))


if __name__ == "__main__":
    main()
