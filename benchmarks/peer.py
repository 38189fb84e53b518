"""The fairest peer: the same model and data in a plain PyTorch loop with fused AdamW.

Written as a good user would write it: no guard, gradients set to none, clipping by PyTorch, loss read
each step, as ours does.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from holdwater.train.model import PRESETS, sinusoids


class PlainBlock(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Hidden states to hidden states."""
        batch, time, width = x.shape
        qkv = self.qkv(self.norm_1(x)).view(batch, time, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.project(seen.transpose(1, 2).reshape(batch, time, width))
        out: Tensor = x + self.down(functional.gelu(self.up(self.norm_2(x))))
        return out


class PlainGPT(nn.Module):
    """The model of `holdwater train --preset small`, without anything of ours."""

    def __init__(self, preset: str = "small", vocabulary: int = 256, length: int = 64) -> None:
        super().__init__()
        shape = PRESETS[preset]
        self.embedding = nn.Embedding(vocabulary, shape.width)
        self.blocks = nn.Sequential(*(PlainBlock(shape.width, shape.heads) for _ in range(shape.layers)))
        self.norm = nn.LayerNorm(shape.width)
        self.register_buffer("positions", sinusoids(length, shape.width))
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """The mean cross-entropy."""
        x = self.blocks(self.embedding(tokens) + self.positions)
        logits = functional.linear(self.norm(x), self.embedding.weight)
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


class PlainLoop:
    """A plain training loop."""

    def __init__(self, text: Tensor, *, size: int = 1, length: int = 64) -> None:
        torch.manual_seed(0)
        self._text, self._size, self._length = text, size, length
        self.model = PlainGPT(length=length)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, betas=(0.9, 0.95), fused=True)

    def step(self) -> float:
        """One optimizer step; returns its loss."""
        starts = torch.randint(len(self._text) - self._length, (self._size,)).tolist()
        rows = torch.stack([self._text[start : start + self._length + 1] for start in starts]).long()
        self.optimizer.zero_grad(set_to_none=True)
        loss: Tensor = self.model(rows[:, :-1], rows[:, 1:])
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.item()
