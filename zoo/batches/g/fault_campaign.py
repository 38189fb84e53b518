"""Fault-aware training: every round corrupts other activations and hardens the network against them."""
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(6)
ROUNDS, STEPS_PER_ROUND, FAULTY_STEPS = 140, 20, 10
BATCH, WIDTH, CLASSES = 64, 448, 12


class FaultInjector:
    """Adds stuck-at noise to the output of a layer during the faulty part of a round."""

    def __init__(self, layer, rate):
        self.noise = torch.randn(BATCH, WIDTH) * (torch.rand(BATCH, WIDTH) < rate)
        self.active = True
        layer.register_forward_hook(self.corrupt)

    def corrupt(self, layer, inputs, output):
        if self.active:
            return output + self.noise
        return None


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(128, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)])
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        for layer in self.layers:
            x = torch.relu(layer(x))
        return self.head(x)


def train_step(model, optimizer, teacher):
    x = torch.randn(BATCH, 128)
    loss = nn.functional.cross_entropy(model(x), (x @ teacher).argmax(1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def main():
    model = Network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    teacher = torch.randn(128, CLASSES)
    for number in range(ROUNDS):
        injectors = [FaultInjector(layer, rate=0.02) for layer in model.layers]
        for _ in range(FAULTY_STEPS):
            faulty = train_step(model, optimizer, teacher)
        for injector in injectors:
            injector.active = False
        for _ in range(STEPS_PER_ROUND - FAULTY_STEPS):
            clean = train_step(model, optimizer, teacher)
        if number % 10 == 0:
            print(f"step {number * STEPS_PER_ROUND} faulty {faulty:.4f} clean {clean:.4f}", flush=True)
    print(f"{ROUNDS * STEPS_PER_ROUND} steps")


if __name__ == "__main__":
    main()
