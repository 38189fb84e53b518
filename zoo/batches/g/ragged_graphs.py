"""Message passing on batches of graphs of very different sizes, collated by a pool of threads."""
import random
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(33)
STEPS = 3000
THREADS, GRAPHS_PER_BATCH, AHEAD = 4, 6, 6
FEATURES, WIDTH = 32, 64


def make_batch(seed):
    """A few graphs as one: the number of nodes is log-normal, so that a few batches are very large."""
    rng = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    sizes = [min(6000, int(rng.lognormvariate(4.8, 1.2)) + 4) for _ in range(GRAPHS_PER_BATCH)]
    nodes = sum(sizes)
    features = torch.randn(nodes, FEATURES, generator=generator)
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    edges = torch.randint(0, nodes, (2, 3 * nodes), generator=generator)
    adjacency = torch.sparse_coo_tensor(edges, torch.ones(3 * nodes), (nodes, nodes)).coalesce()
    target = torch.zeros(len(sizes)).index_add_(0, owner, features[:, 0].abs()) / torch.tensor(sizes)
    return features, adjacency, owner, target


class GraphNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(FEATURES, WIDTH)
        self.second = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 1)

    def forward(self, features, adjacency, owner, graphs):
        x = torch.relu(self.first(features))
        x = x + torch.relu(self.second(torch.sparse.mm(adjacency, x) / 3.0))
        pooled = torch.zeros(graphs, WIDTH).index_add(0, owner, x)
        counts = torch.bincount(owner, minlength=graphs)[:, None]
        return self.head(pooled / counts).squeeze(1)


def main():
    model = GraphNetwork()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    largest = 0
    with ThreadPoolExecutor(THREADS) as pool:
        waiting = [pool.submit(make_batch, seed) for seed in range(AHEAD)]
        for step in range(STEPS):
            features, adjacency, owner, target = waiting.pop(0).result()
            waiting.append(pool.submit(make_batch, step + AHEAD))
            loss = nn.functional.mse_loss(model(features, adjacency, owner, len(target)), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            largest = max(largest, len(features))
            if step % 200 == 0:
                print(f"step {step} loss {loss.item():.4f} largest batch {largest} nodes", flush=True)
    print(f"{STEPS} steps")


if __name__ == "__main__":
    main()
