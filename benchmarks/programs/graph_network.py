"""PyTorch Geometric's first graph network (GCN), on a graph made here, with neighbours drawn by its own loader."""

import json

import torch
import torch.nn.functional as F
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GCNConv, global_mean_pool


class GCN(torch.nn.Module):
    """Two convolutions, and the mean of a graph's nodes."""

    def __init__(self):
        super().__init__()
        self.conv1 = GCNConv(16, 64)
        self.conv2 = GCNConv(64, 64)
        self.out = torch.nn.Linear(64, 3)

    def forward(self, data):
        """Scores of each graph."""
        x = self.conv1(data.x, data.edge_index).relu()
        x = F.dropout(self.conv2(x, data.edge_index).relu(), p=0.3, training=self.training)
        return self.out(global_mean_pool(x, data.batch))


torch.manual_seed(12345)
graphs = []
for number in range(600):
    nodes = int(torch.randint(10, 40, ()))
    edges = torch.randint(0, nodes, (2, 4 * nodes))
    graphs.append(Data(x=torch.randn(nodes, 16) + number % 3, edge_index=edges, y=torch.tensor([number % 3])))
train, test = DataLoader(graphs[:500], batch_size=25, shuffle=True), DataLoader(graphs[500:], batch_size=50)
model = GCN()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
losses = []
for epoch in range(60):
    model.train()
    total = 0.0
    for data in train:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(data), data.y)
        loss.backward()
        optimizer.step()
        total += loss.item()
    model.eval()
    with torch.no_grad():
        right = sum(int((model(data).argmax(1) == data.y).sum()) for data in test)
    losses.append([total, right])
print("LOSSES", json.dumps(losses))
