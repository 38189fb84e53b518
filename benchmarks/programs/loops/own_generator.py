"""Random numbers come from a generator of the script's own."""

import torch
from torch import nn

import holdwater
from tiny import data, final, network, show


class Congruential:
    """A linear congruential generator."""

    def __init__(self, seed: int) -> None:
        self.state = seed

    def draw(self, below: int) -> int:
        """Draw a number."""
        self.state = (6364136223846793005 * self.state + 1442695040888963407) % 2**64
        return (self.state >> 33) % below

    def state_dict(self) -> dict[str, int]:
        """For a checkpoint."""
        return {"state": self.state}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """From a checkpoint."""
        self.state = state["state"]


inputs, targets = data()
model, dice = network(), Congruential(5)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
for name, thing in (("model", model), ("optimizer", optimizer), ("dice", dice)):
    holdwater.resumable(name, thing)
for _ in holdwater.steps(60):
    chosen = [dice.draw(len(inputs)) for _ in range(8)]
    loss = nn.functional.mse_loss(model(inputs[chosen]), targets[chosen])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    show(loss)
final(model)
