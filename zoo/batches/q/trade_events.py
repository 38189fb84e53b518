"""Temporal link prediction on a stream of trades; a node is summed up by its latest ten events."""
import time

import networkx as nx
import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(0)
rng = np.random.default_rng(0)
NODES, DIM, RECENT, BATCH, STEPS = 400, 128, 10, 64, 2200

market = nx.MultiGraph()
market.add_nodes_from(range(NODES))
latest = {n: [] for n in range(NODES)}
embed = nn.Embedding(NODES, DIM)
message = nn.Sequential(nn.Linear(2 * DIM, 256), nn.ReLU(), nn.Linear(256, DIM))
score = nn.Sequential(nn.Linear(2 * DIM, 256), nn.ReLU(), nn.Linear(256, 1))
params = [*embed.parameters(), *message.parameters(), *score.parameters()]
optimizer = torch.optim.Adam(params, lr=1e-3)


def observe(u, v, when, feature):
    key = market.add_edge(u, v, when=when, message=feature)
    for n in (u, v):
        latest[n].append((u, v, key))
        del latest[n][:-RECENT]


def summary(nodes):
    rows = []
    for n in nodes:
        events = [market.edges[e]["message"] for e in latest[n]]
        rows.append(torch.stack(events).mean(0) if events else torch.zeros(DIM))
    return torch.stack(rows)


def encode(nodes):
    return embed(torch.as_tensor(nodes)) + message(torch.cat([embed(torch.as_tensor(nodes)), summary(nodes)], -1))


began = time.time()
for step in range(1, STEPS + 1):
    u = rng.integers(0, NODES, BATCH)
    v = (u + rng.integers(1, 20, BATCH)) % NODES
    w = rng.integers(0, NODES, BATCH)
    hu, hv, hw = encode(u), encode(v), encode(w)
    good, bad = score(torch.cat([hu, hv], -1)), score(torch.cat([hu, hw], -1))
    loss = nn.functional.softplus(-good).mean() + nn.functional.softplus(bad).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    for i in range(BATCH):
        observe(int(u[i]), int(v[i]), step, (hu[i] * hv[i]).detach().clone())
    if step % 200 == 0:
        print(f"step {step} loss {loss.item():.4f} {time.time() - began:.1f}s", flush=True)
print("steps", STEPS)
