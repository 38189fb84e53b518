import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(4)


class CopyTask:
    def __init__(self, vocab=30, length=20):
        self.vocab, self.length = vocab, length

    def sample(self, n):
        src = torch.randint(1, self.vocab, (n, self.length))
        return src, src.flip(1)


class ReverseNet(nn.Module):
    def __init__(self, vocab, length, dim=64):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.position = nn.Parameter(torch.randn(length, dim) * 0.1)
        self.attention = nn.MultiheadAttention(dim, 4, batch_first=True)
        self.out = nn.Linear(dim, vocab)

    def forward(self, src):
        h = self.embed(src) + self.position
        mixed, weights = self.attention(h, h, h, need_weights=True)
        return self.out(h + mixed), weights


def attention_image(weights, title):
    fig, ax = plt.subplots(figsize=(7, 6), dpi=110)
    ax.imshow(weights, cmap="viridis", aspect="auto")
    ax.set_title(title)
    ax.set_xlabel("source position")
    fig.canvas.draw()
    return np.asarray(fig.canvas.buffer_rgba())[::8, ::8, :3].mean(axis=2)


@torch.no_grad()
def evaluate(model, task, step):
    model.eval()
    src, tgt = task.sample(64)
    logits, weights = model(src)
    accuracy = (logits.argmax(-1) == tgt).float().mean().item()
    thumbnail = attention_image(weights.mean(0).numpy(), f"step {step}")
    model.train()
    return accuracy, float(thumbnail.mean())


task = CopyTask()
model = ReverseNet(task.vocab, task.length)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for step in range(1, 1801):
    src, tgt = task.sample(64)
    logits, _ = model(src)
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), tgt.flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0:
        accuracy, brightness = evaluate(model, task, step)
        print(f"{step}: loss {loss.item():.3f} acc {accuracy:.3f} attention {brightness:.1f}")
print(f"{step} steps done")
