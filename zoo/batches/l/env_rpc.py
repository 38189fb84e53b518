"""Q-learning against an environment behind an asyncio channel; calls are abandoned when the channel closes."""
import asyncio

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(8)


class EnvServer:
    def __init__(self):
        self.rng = np.random.default_rng(8)

    async def handle(self, actions):
        await asyncio.sleep(0)
        frames = self.rng.random((16, 40, 40), dtype=np.float32)
        reward = np.where(frames.mean((1, 2)) > 0.5, actions == 1, actions == 0).astype("float32")
        return {"frames": frames, "reward": reward}


class Channel:
    def __init__(self, server):
        self.server = server
        self.closed = asyncio.Event()

    async def _fail_on_close(self, reply):
        await self.closed.wait()
        reply.setdefault("error", "channel closed")

    async def call(self, actions):
        reply = {}
        asyncio.ensure_future(self._fail_on_close(reply))
        reply.update(await self.server.handle(actions))
        return reply


async def main():
    channel = Channel(EnvServer())
    q = nn.Sequential(nn.Flatten(), nn.Linear(1600, 160), nn.ReLU(), nn.Linear(160, 2))
    opt = torch.optim.Adam(q.parameters(), lr=1e-3)
    frames = torch.rand(16, 40, 40)
    for step in range(1, 2401):
        with torch.no_grad():
            actions = q(frames).argmax(-1)
        explore = torch.rand(16) < 0.2
        actions = torch.where(explore, torch.randint(0, 2, (16,)), actions)
        reply = await channel.call(actions.numpy())
        frames = torch.from_numpy(reply["frames"])
        reward = torch.from_numpy(reply["reward"])
        for _ in range(2):
            loss = nn.functional.smooth_l1_loss(q(frames).gather(1, actions[:, None])[:, 0], reward)
            opt.zero_grad()
            loss.backward()
            opt.step()
        if step % 200 == 0:
            print(f"step {step} loss {loss.item():.4f} reward {reward.mean():.2f}", flush=True)
    channel.closed.set()


asyncio.run(main())
