import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(6)
VOCAB = 64


class Curriculum:
    """Sequence length in stages over the first part of the run."""

    def __init__(self, total_steps, shortest=24, longest=168, stages=11):
        self.ramp = int(total_steps * 0.6)
        self.lengths = torch.linspace(shortest, longest, stages).int().tolist()

    def length(self, step):
        stage = min(len(self.lengths) - 1, step * len(self.lengths) // self.ramp)
        return self.lengths[stage]


class CharTransformer(nn.Module):
    def __init__(self, dim=48, heads=4, depth=2, max_len=512):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, dim)
        self.position = nn.Embedding(max_len, dim)
        self.qkv = nn.ModuleList([nn.Linear(dim, 3 * dim) for _ in range(depth)])
        self.mlp = nn.ModuleList([nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)) for _ in range(depth)])
        self.heads, self.out = heads, nn.Linear(dim, VOCAB)

    def forward(self, tokens):
        b, n = tokens.shape
        mask = torch.full((n, n), float("-inf")).triu(1)
        x = self.embed(tokens) + self.position(torch.arange(n))
        for qkv, mlp in zip(self.qkv, self.mlp):
            q, k, v = qkv(x).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + mask).softmax(-1)
            x = x + (weights @ v).transpose(1, 2).reshape(b, n, -1)
            x = x + mlp(x)
        return self.out(x)


def sample(batch, length):
    start = torch.randint(0, VOCAB, (batch, 1))
    stride = torch.randint(1, 7, (batch, 1))
    return (start + stride * torch.arange(length + 1)) % VOCAB


TOTAL = 440
curriculum, model = Curriculum(TOTAL), CharTransformer()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for step in range(TOTAL):
    tokens = sample(10, curriculum.length(step))
    logits = model(tokens[:, :-1])
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 40 == 0:
        print(f"{step} length {curriculum.length(step)} loss {loss.item():.3f}")
print(f"done after {step + 1} steps")
