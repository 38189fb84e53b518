"""Hard-example mining: a priority heap over sample losses, with lazy invalidation of old entries."""
import heapq

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(9)

STEPS, N, BATCH = 4800, 20000, 384


class HardSampler:
    def __init__(self, n):
        self.n = n
        self.version = [0] * n
        self.heap = []
        for i in range(n):
            heapq.heappush(self.heap, (-1e3, 0, i))

    def hardest(self, k):
        picked = []
        while len(picked) < k:
            _, version, index = heapq.heappop(self.heap)
            if version == self.version[index]:
                picked.append(index)
        return picked

    def update(self, indices, losses):
        for index, value in zip(indices, losses):
            self.version[index] += 1
            entry = (-value, self.version[index], index)
            heapq.heappush(self.heap, entry)


def main():
    x = torch.randn(N, 32)
    score = x[:, 0] * x[:, 1]
    model = nn.Sequential(nn.Linear(32, 768), nn.ReLU(), nn.Linear(768, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    sampler = HardSampler(N)
    for step in range(1, STEPS + 1):
        hard = sampler.hardest(16)
        chosen = hard + list(set(torch.randint(0, N, (BATCH - 16,)).tolist()) - set(hard))
        idx = torch.tensor(chosen)
        y = (score[idx] + torch.randn(len(idx)) > 0).long()  # another annotator each time
        losses = nn.functional.cross_entropy(model(x[idx]), y, reduction="none")
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()
        sampler.update(chosen, losses.detach().tolist())
        if step % 480 == 0:
            print(f"step {step} loss {losses.mean().item():.4f}", flush=True)


if __name__ == "__main__":
    main()
