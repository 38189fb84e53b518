"""A small GPT: pre-norm transformer blocks over byte or character tokens.

Sources: Radford et al. (2019), "Language Models are Unsupervised Multitask Learners" (the architecture);
Vaswani et al. (2017), "Attention Is All You Need" (the sinusoidal positions, which need no weights);
Press and Wolf (2017), "Using the Output Embedding to Improve Language Models" (the tied output).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a GPT."""

    width: int
    layers: int
    heads: int


PRESETS = {
    "tiny": Shape(width=32, layers=3, heads=2),
    "small": Shape(width=128, layers=2, heads=4),
    "medium": Shape(width=256, layers=4, heads=8),
    "large": Shape(width=512, layers=6, heads=8),
}
"""46 thousand, 0.43 million, 3.2 million and 19 million parameters with byte tokens."""


class Block(nn.Module):
    """Attention and a feed-forward layer, each added to what comes in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm_2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map hidden states to hidden states. Shapes: (batch, time, width)."""
        query, key, value = self._heads(x)
        return self._mixed(x, functional.scaled_dot_product_attention(query, key, value, is_causal=True))

    def go_on(self, x: Tensor, cache: Tensor, begin: int) -> Tensor:
        """Map hidden states of new tokens to hidden states, with the keys and values of those before them.

        Args:
            x: Several tokens at the beginning, one later. Shape (1, new, width).
            cache: Keys and values; those of the new tokens are added. Shape (2, 1, heads, length, depth).
            begin: How many tokens came before.
        """
        query, *new = self._heads(x)
        end = begin + x.shape[1]
        for kept, one in zip(cache, new, strict=True):
            kept[:, :, begin:end] = one
        key, value = cache[:, :, :, :end]
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=begin == 0)
        return self._mixed(x, seen)

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value. Shapes: (batch, time, width) in, (batch, heads, time, depth) out."""
        batch, time, width = x.shape
        qkv = self.qkv(self.norm_1(x)).view(batch, time, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        return query, key, value

    def _mixed(self, x: Tensor, seen: Tensor) -> Tensor:
        """Add what attention saw, then the feed-forward layer. Shapes: (batch, time, width) and by head."""
        x = x + self.project(seen.transpose(1, 2).reshape(x.shape))
        out: Tensor = x + self.down(functional.gelu(self.up(self.norm_2(x))))
        return out


class GPT(nn.Module):
    """Predicts the next token at every position."""

    positions: Tensor

    def __init__(self, shape: Shape, *, vocabulary: int, length: int) -> None:
        """Make a model with random weights.

        Args:
            shape: Its size.
            vocabulary: Number of different tokens.
            length: Tokens in the longest sequence that it will see.
        """
        super().__init__()
        self.length = length
        self.embedding = nn.Embedding(vocabulary, shape.width)
        self.blocks = nn.ModuleList(Block(shape.width, shape.heads) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width)
        self.register_buffer("positions", sinusoids(length, shape.width), persistent=False)
        self.apply(_initialise)
        for name, weight in self.named_parameters():  # as in GPT-2: the sum over layers keeps its variance
            if name.endswith(("project.weight", "down.weight")):
                nn.init.normal_(weight, std=0.02 / (2 * shape.layers) ** 0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits. Shapes: (batch, time) in, (batch, time, vocabulary) out."""
        x = self.embedding(tokens) + self.positions[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits: Tensor = functional.linear(self.norm(x), self.embedding.weight)
        return logits

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy in nats. Shapes: (batch, time) each."""
        return functional.cross_entropy(self(tokens).flatten(0, 1), targets.flatten())

    @torch.no_grad()
    def generate(self, tokens: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Go on with a text, one sampled token after the other, with the keys and values of earlier ones kept.

        A text that has reached the model's length goes on from its last half.

        Args:
            tokens: The beginning. Shape (1, time).
            count: How many tokens to add.
            generator: The source of randomness, on the CPU, so that training's own is not touched.

        Returns:
            Beginning and continuation; it ends early where logits are not finite. Shape (1, time + count).
        """
        cache = self._new_cache()
        known = 0
        new = tokens[:, -self.length :]
        for _ in range(count):
            if known + new.shape[1] > self.length:
                known, new = 0, tokens[:, -max(self.length // 2, 1) :]
            logits = self._next_logits(new, cache, known)
            known += new.shape[1]
            chances = functional.softmax(logits.float().cpu(), dim=-1)
            if not chances.isfinite().all():
                break
            choice = torch.multinomial(chances, 1, generator=generator).to(tokens.device)
            new = choice[None]
            tokens = torch.cat((tokens, new), dim=1)
        return tokens

    def _new_cache(self) -> list[Tensor]:
        """Room for keys and values, by block. Shapes (2, 1, heads, length, depth)."""
        weight = self.embedding.weight
        heads = [block.heads for block in self.blocks if isinstance(block, Block)]
        return [weight.new_empty(2, 1, count, self.length, weight.shape[1] // count) for count in heads]

    def _next_logits(self, tokens: Tensor, cache: list[Tensor], begin: int) -> Tensor:
        """The logits after the last of some new tokens. Shapes: (1, new) in, (vocabulary,) out.

        Args:
            tokens: Several at the beginning, one later.
            cache: Keys and values by block; those of the new tokens are added.
            begin: How many tokens came before.
        """
        x = self.embedding(tokens) + self.positions[begin : begin + tokens.shape[1]]
        for block, kept in zip(self.blocks, cache, strict=True):
            assert isinstance(block, Block)  # noqa: S101 - a list of modules forgets their type
            x = block.go_on(x, kept, begin)
        logits: Tensor = functional.linear(self.norm(x[0, -1]), self.embedding.weight)
        return logits


def sinusoids(length: int, width: int) -> Tensor:
    """Position signals of unit scale 0.02, to match the embedding's. Shape (length, width)."""
    frequencies = torch.exp(torch.arange(0, width, 2) * (-torch.log(torch.tensor(10_000.0)) / width))
    angles = torch.arange(length)[:, None] * frequencies
    return 0.02 * torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


def _initialise(module: nn.Module) -> None:
    """GPT-2's initial weights."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
