"""The fairest peer: the same model and data in a plain PyTorch loop with fused AdamW.

Written as a good user would write it: no guard, gradients set to none, clipping by PyTorch, loss read
each step, as ours does.
"""

import torch
from torch import Tensor, nn

from holdwater.train.pretrain.model import GPT, PRESETS


class PlainLoop:
    """A plain training loop."""

    def __init__(self, text: Tensor, *, size: int = 1, length: int = 64) -> None:
        torch.manual_seed(0)
        self._text, self._size, self._length = text, size, length
        self.model = GPT(PRESETS["small"], vocabulary=256, length=length)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, betas=(0.9, 0.95), fused=True)

    def step(self) -> float:
        """One optimizer step; returns its loss."""
        starts = torch.randint(len(self._text) - self._length, (self._size,)).tolist()
        rows = torch.stack([self._text[start : start + self._length + 1] for start in starts]).long()
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.model.loss(rows[:, :-1], rows[:, 1:])
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.item()
