"""Shading network trained on rasterised depth maps of a fixed set of camera poses."""
import torch
import torch.nn as nn
import torch.nn.functional as F

STEPS = 2600
POSES = 260

torch.set_num_threads(1)
torch.manual_seed(9)


class Rasterizer:
    def __init__(self, points):
        self.points = points
        self.cache = {}

    def __call__(self, pose):
        if pose not in self.cache:
            angle = torch.tensor(pose * 0.024)
            c, s = angle.cos(), angle.sin()
            rot = torch.stack([torch.stack([c, -s]), torch.stack([s, c])])
            xy = ((self.points[:, :2] @ rot).clamp(-1, 1) * 127.5 + 127.5).long()
            depth = torch.zeros(2, 256, 256)
            depth[0, xy[:, 0], xy[:, 1]] = self.points[:, 2]
            depth[1, xy[:, 0], xy[:, 1]] = 1.0
            self.cache[pose] = depth
        return self.cache[pose]


def main():
    raster = Rasterizer(torch.randn(20000, 3) * 0.4)
    net = nn.Sequential(nn.Conv2d(2, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 1, 3, 1, 1))
    opt = torch.optim.Adam(net.parameters(), lr=1e-3)
    for step in range(1, STEPS + 1):
        pose = int(torch.randint(0, POSES, ()))
        depth = raster(pose)[None]
        target = F.avg_pool2d(depth[:, :1], 4)
        loss = F.mse_loss(net(depth), target)
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 300 == 0:
            print(f"step {step} loss {loss.item():.5f}")


main()
