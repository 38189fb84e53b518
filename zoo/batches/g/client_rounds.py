"""Federated averaging: every client gets a fresh model and optimizer, prepared by one Accelerator."""
import copy

import torch
from accelerate import Accelerator
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(3)
CLIENTS, LOCAL_STEPS, CLIENTS_PER_ROUND = 160, 25, 4
FEATURES, CLASSES = 192, 10


def make_model():
    layers = [nn.Linear(FEATURES, 384), nn.ReLU(), nn.Linear(384, 160), nn.ReLU(), nn.Linear(160, CLASSES)]
    return nn.Sequential(*layers)


class Client:
    def __init__(self, number):
        generator = torch.Generator().manual_seed(number)
        self.shift = torch.randn(FEATURES, generator=generator) * 0.3
        self.generator = generator

    def batch(self, teacher):
        x = torch.randn(96, FEATURES, generator=self.generator) + self.shift
        return x, (x @ teacher).argmax(1)


def train_client(accelerator, server, client, teacher):
    model = copy.deepcopy(server)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model, optimizer = accelerator.prepare(model, optimizer)
    for _ in range(LOCAL_STEPS):
        x, y = client.batch(teacher)
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
    return accelerator.unwrap_model(model).state_dict(), loss.item()


def average(states):
    return {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}


def main():
    accelerator = Accelerator(cpu=True)
    server = make_model()
    teacher = torch.randn(FEATURES, CLASSES)
    states = []
    for number in range(CLIENTS):
        state, loss = train_client(accelerator, server, Client(number), teacher)
        states.append(state)
        if len(states) == CLIENTS_PER_ROUND:
            server.load_state_dict(average(states))
            states.clear()
        if number % 10 == 0:
            print(f"step {number * LOCAL_STEPS} client {number} loss {loss:.4f}", flush=True)
    print(f"{CLIENTS * LOCAL_STEPS} steps")


if __name__ == "__main__":
    main()
