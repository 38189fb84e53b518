"""Self-play with search trees (parent and child links), then training on the games."""
from collections import deque
import gc
import random
import numpy as np
import torch
from torch import nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(18)
random.seed(18)

CELLS, GAMES, NODES_PER_GAME, UPDATES_PER_GAME = 64, 70, 3500, 40
COLLECT_EVERY = 8  # games; the collector is off during the search
gc.disable()


class Node:
    def __init__(self, state, parent=None):
        self.state, self.parent, self.children = state, parent, {}
        self.priors = np.random.dirichlet(np.ones(4)).astype(np.float32)
        self.visits, self.value = 0, 0.0

    def best_move(self):
        def score(m):
            child = self.children.get(m)
            q = child.value / child.visits if child else 0.0
            return q + self.priors[m] * (1 + self.visits) ** 0.5 / (1 + (child.visits if child else 0))
        return max(range(4), key=score)


def search(root):
    for _ in range(NODES_PER_GAME):
        node = root
        while True:
            move = node.best_move()
            if move not in node.children:
                state = node.state.copy()
                state[random.randrange(CELLS)] += (1, -1)[move % 2]
                node.children[move] = node = Node(state, node)
                break
            node = node.children[move]
        reward = float(np.tanh(node.state[:CELLS // 2].sum() / 4))
        while node is not None:
            node.visits += 1
            node.value += reward
            node = node.parent


def examples(root):
    out, node = [], root
    while node.children:
        visits = np.zeros(4, dtype=np.float32)
        for m, c in node.children.items():
            visits[m] = c.visits
        out.append((node.state, visits / visits.sum()))
        node = max(node.children.values(), key=lambda c: c.visits)
    return out


net = nn.Sequential(nn.Linear(CELLS, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 4))
optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
positions = deque(maxlen=500)
steps = 0
for game in range(1, GAMES + 1):
    root = Node(np.zeros(CELLS, dtype=np.float32))
    search(root)
    positions.extend(examples(root))
    del root
    for _ in range(UPDATES_PER_GAME):
        batch = random.choices(positions, k=64)
        x, pi = (torch.from_numpy(np.stack(part)) for part in zip(*batch))
        loss = -(pi * F.log_softmax(net(x), 1)).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
    if game % COLLECT_EVERY == 0:
        print(f"game {game}: loss {loss.item():.3f}, collected {gc.collect()}")
print(f"{steps} steps")
