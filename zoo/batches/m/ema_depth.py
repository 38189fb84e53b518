"""Monocular depth; validation runs on a copy with averaged weights."""
import contextlib
import copy
import time

import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(0)

STEPS = 1800
VAL_EVERY = 18


class DepthNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(
            nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(32, 96, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(96, 288, 3, stride=2, padding=1), nn.ReLU(),
        )
        self.mid = nn.Conv2d(288, 160, 3, padding=1)
        self.out = nn.Sequential(nn.ReLU(), nn.Conv2d(160, 1, 1), nn.Upsample(scale_factor=8.0))

    def forward(self, x):
        return self.out(self.mid(self.enc(x)))


class WeightAverage:
    def __init__(self, net, decay=0.99):
        self.decay = decay
        self.values = {k: v.detach().clone() for k, v in net.state_dict().items()}

    @torch.no_grad()
    def update(self, net):
        for k, v in net.state_dict().items():
            self.values[k].lerp_(v, 1 - self.decay)


@contextlib.contextmanager
def averaged(net, average):
    """A copy of the net with the averaged weights, for as long as the context lasts."""
    shadow = copy.deepcopy(net).eval()
    shadow.load_state_dict(average.values)
    yield shadow
    del shadow


class Trainer:
    def __init__(self, net):
        self.net = net
        self.average = WeightAverage(net)
        self.opt = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
        self.contexts = contextlib.ExitStack()
        self.val = torch.rand(8, 3, 32, 32)

    def train_step(self, image):
        loss = (self.net(image) - image.mean(1, keepdim=True)).abs().mean()
        self.opt.zero_grad()
        loss.backward()
        self.opt.step()
        self.average.update(self.net)
        return loss.item()

    def validate(self):
        net = self.contexts.enter_context(averaged(self.net, self.average))
        with torch.no_grad():
            return (net(self.val) - self.val.mean(1, keepdim=True)).abs().mean().item()

    def fit(self):
        start = time.time()
        with self.contexts:
            for step in range(1, STEPS + 1):
                loss = self.train_step(torch.rand(2, 3, 32, 32))
                if step % VAL_EVERY == 0:
                    error = self.validate()
                    if step % 180 == 0:
                        print(f"step {step} loss {loss:.3f} val {error:.3f} {time.time() - start:.1f}s")


def main():
    Trainer(DepthNet()).fit()


if __name__ == "__main__":
    main()
