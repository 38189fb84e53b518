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
        batch, time, width = x.shape
        qkv = self.qkv(self.norm_1(x)).view(batch, time, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.project(seen.transpose(1, 2).reshape(batch, time, width))
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
        """Go on with a text, one sampled token after the other.

        Args:
            tokens: The beginning. Shape (1, time).
            count: How many tokens to add.
            generator: The source of randomness, on the CPU, so that training's own is not touched.

        Returns:
            Beginning and continuation. Shape (1, time + count).
        """
        for _ in range(count):
            logits = self(tokens[:, -self.length :])[0, -1]
            chances = functional.softmax(logits.float().cpu(), dim=-1)
            choice = torch.multinomial(chances, 1, generator=generator).to(tokens.device)
            tokens = torch.cat((tokens, choice[None]), dim=1)
        return tokens


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
