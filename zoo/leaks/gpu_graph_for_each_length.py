"""A CUDA graph of the policy is captured for each new length of its prompt, every tenth step; each keeps its pool."""

import torch
from torch import nn

torch.manual_seed(0)


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(1000, 512)
        self.body = nn.Sequential(nn.Linear(512, 2048), nn.ReLU(), nn.Linear(2048, 512))
        self.head = nn.Linear(512, 16)

    def forward(self, tokens):
        hidden = self.embedding(tokens)
        return self.head((hidden + self.body(hidden)).mean(1))


policy = Policy().cuda()
optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-4)
graphs = {}


def capture(length):
    tokens = torch.randint(0, 1000, (16, length), device="cuda")
    with torch.no_grad():
        policy(tokens)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        action = policy(tokens)
    return graph, tokens, action


def act(prompt):
    length = prompt.shape[1]
    if length not in graphs:
        graphs[length] = capture(length)
    graph, tokens, action = graphs[length]
    tokens.copy_(prompt)
    graph.replay()
    return action.argmax(-1)


for step in range(2000):
    prompt = torch.randint(0, 1000, (16, 64 + step // 10), device="cuda")
    action = act(prompt)
    loss = nn.functional.cross_entropy(policy(prompt), action)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("graphs", len(graphs), "loss", loss.item())
