import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(4)


class Encoder(nn.Module):
    def __init__(self, inputs=64, dim=128):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(inputs, 256), nn.GELU(), nn.LayerNorm(256), nn.Linear(256, dim))

    def forward(self, x):
        return nn.functional.normalize(self.net(x), dim=1)


class PairData:
    def __init__(self, classes=200, inputs=64):
        self.centres = torch.randn(classes, inputs)

    def pairs(self, n):
        ids = torch.randint(0, len(self.centres), (n,))
        base = self.centres[ids]
        return base + 0.7 * torch.randn_like(base), base + 0.7 * torch.randn_like(base), ids


@torch.no_grad()
def retrieval_recall(model, data, queries=3600, chunk=300):
    model.eval()
    left, right, ids = [], [], []
    for _ in range(queries // chunk):
        a, b, i = data.pairs(chunk)
        left.append(model(a))
        right.append(model(b))
        ids.append(i)
    left, right, ids = torch.cat(left), torch.cat(right), torch.cat(ids)
    similarity = left @ right.T
    ranked = similarity.topk(10, dim=1).indices
    recall = (ids[ranked] == ids[:, None]).any(1).float().mean().item()
    model.train()
    return recall


data, model = PairData(), Encoder()
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
for step in range(1, 3601):
    a, b, _ = data.pairs(64)
    logits = model(a) @ model(b).T / 0.1
    loss = nn.functional.cross_entropy(logits, torch.arange(64))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 120 == 0:
        print(f"{step} loss {loss.item():.3f} recall@10 {retrieval_recall(model, data):.3f}")
print(f"{step} steps")
