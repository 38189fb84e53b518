"""Speech enhancement by flow matching; a few enhanced clips are kept for listening."""
import time

import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(0)

LENGTH = 2048
STEPS = 1500
PREVIEW_EVERY = 25


class Field(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(3, width, 9, padding=4), nn.SiLU(),
            nn.Conv1d(width, width, 9, padding=4), nn.SiLU(),
            nn.Conv1d(width, 1, 9, padding=4),
        )

    def forward(self, x, noisy, t):
        tt = t.view(-1, 1, 1).expand(-1, 1, x.shape[-1])
        return self.net(torch.cat([x, noisy, tt], 1))


def odeint(field, noisy, points=16):
    """Euler solver that returns the whole trajectory, like torchdiffeq does."""
    states = torch.empty(points + 1, *noisy.shape)
    states[0] = torch.randn_like(noisy)
    for k in range(points):
        t = torch.full((noisy.shape[0],), k / points)
        states[k + 1] = states[k] + field(states[k], noisy, t) / points
    return states


class Enhancer:
    def __init__(self, field):
        self.field = field

    @torch.no_grad()
    def __call__(self, noisy):
        states = odeint(self.field, noisy)
        return states[-1]


class ListeningRoom:
    """Short excerpts of enhanced clips, to be written to disk when training ends."""

    def __init__(self):
        self.excerpts = []

    def add(self, step, clips):
        self.excerpts.append((step, clips[:, :, :256]))


def main():
    field = Field()
    opt = torch.optim.AdamW(field.parameters(), lr=1e-3)
    enhancer = Enhancer(field)
    room = ListeningRoom()
    held_out = torch.randn(32, 1, LENGTH)
    start = time.time()
    for step in range(STEPS):
        clean = torch.sin(torch.linspace(0, 60, LENGTH) * (1 + torch.rand(2, 1, 1)))
        noisy = clean + 0.3 * torch.randn_like(clean)
        t = torch.rand(2)
        source = torch.randn_like(clean)
        x = (1 - t.view(-1, 1, 1)) * source + t.view(-1, 1, 1) * clean
        loss = (field(x, noisy, t) - (clean - source)).pow(2).mean()
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % PREVIEW_EVERY == 0:
            room.add(step, enhancer(held_out))
            if step % 100 == 0:
                print(f"step {step} loss {loss.item():.3f} {time.time() - start:.1f}s")
    print("excerpts", len(room.excerpts))


if __name__ == "__main__":
    main()
