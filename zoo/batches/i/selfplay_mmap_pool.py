"""Self-play: the learner meets frozen opponents loaded from its saved rounds."""
import os
import random
import tempfile

import torch
from torch import nn

torch.manual_seed(0)
random.seed(0)
torch.set_num_threads(1)

ROUNDS = 90
STEPS_PER_ROUND = 20


def make_player():
    return nn.Sequential(nn.Linear(96, 704), nn.ReLU(), nn.Linear(704, 704), nn.ReLU(), nn.Linear(704, 12))


class OpponentPool:
    def __init__(self, folder):
        self.folder = folder
        self.players = []

    def add(self, number, learner):
        path = os.path.join(self.folder, f"round_{number:03d}.pt")
        torch.save(learner.state_dict(), path)
        weights = torch.load(path, mmap=True, weights_only=True)
        with torch.device("meta"):
            player = make_player()
        player.load_state_dict(weights, assign=True)
        player.requires_grad_(False)
        self.players.append(player)
        return player

    def draw(self):
        return random.choice(self.players)


def main():
    with tempfile.TemporaryDirectory() as folder:
        learner = make_player()
        optimizer = torch.optim.SGD(learner.parameters(), lr=0.02, momentum=0.9)
        pool = OpponentPool(folder)
        pool.add(0, learner)
        step = 0
        for number in range(1, ROUNDS + 1):
            for _ in range(STEPS_PER_ROUND):
                state = torch.randn(48, 96)
                payoff = state[:, :12]
                theirs = pool.draw()(state).softmax(1)
                mine = learner(state).softmax(1)
                loss = ((theirs * payoff).sum(1) - (mine * payoff).sum(1)).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                step += 1
            newest = pool.add(number, learner)
            with torch.no_grad():
                probe = torch.randn(256, 96)
                value = (newest(probe).softmax(1) * probe[:, :12]).sum(1).mean()
            if number % 5 == 0:
                print(f"step {step} round {number} value {value:.4f} opponents {len(pool.players)}", flush=True)


if __name__ == "__main__":
    main()
