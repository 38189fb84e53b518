"""Keep the best checkpoints of a run in memory and average them at the end."""
import copy
import heapq

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)

DIM, WIDTH, BATCH, STEPS, EVERY, KEEP = 64, 1024, 32, 2000, 40, 12


class Soup:
    def __init__(self, keep):
        self.keep = keep
        self.best = []

    def offer(self, score, step, model):
        if len(self.best) == self.keep and score <= self.best[0][0]:
            return
        if len(self.best) == self.keep:
            heapq.heappop(self.best)
        state = copy.deepcopy(model.state_dict())
        heapq.heappush(self.best, (score, step, state))

    def average(self):
        states = [state for _, _, state in self.best]
        return {name: torch.stack([s[name] for s in states]).mean(dim=0) for name in states[0]}


def main():
    model = nn.Sequential(nn.Linear(DIM, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(),
                          nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 8))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    rule = torch.randn(DIM, 8)
    held_out = torch.randn(512, DIM)
    soup = Soup(KEEP)
    for step in range(1, STEPS + 1):
        x = torch.randn(BATCH, DIM)
        loss = nn.functional.cross_entropy(model(x), (x @ rule).argmax(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % EVERY == 0:
            with torch.no_grad():
                score = (model(held_out).argmax(1) == (held_out @ rule).argmax(1)).float().mean().item()
            soup.offer(score, step, model)
            print(f"step {step} loss {loss.item():.4f} score {score:.3f}", flush=True)
    model.load_state_dict(soup.average())


if __name__ == "__main__":
    main()
