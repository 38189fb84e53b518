"""Region proposal network trained on images of varying size, batch size one."""
import math

import torch
from torch import nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(0)

STEPS = 2100


class AnchorGenerator(nn.Module):
    def __init__(self, sizes=(24, 48), ratios=(0.5, 1.0, 2.0), stride=8):
        super().__init__()
        self.stride = stride
        base = []
        for s in sizes:
            for r in ratios:
                h, w = s * math.sqrt(r), s / math.sqrt(r)
                base.append([-w / 2, -h / 2, w / 2, h / 2])
        self.register_buffer("base", torch.tensor(base))
        self._cache = {}

    def grid_anchors(self, gh, gw):
        ys = torch.arange(gh) * self.stride
        xs = torch.arange(gw) * self.stride
        yy, xx = torch.meshgrid(ys, xs, indexing="ij")
        shifts = torch.stack([xx, yy, xx, yy], -1).reshape(-1, 1, 4).float()
        return (shifts + self.base).reshape(-1, 4)

    def cached_grid_anchors(self, image_size, feature_size):
        key = str(image_size) + str(feature_size)
        if key in self._cache:
            return self._cache[key]
        anchors = self.grid_anchors(*feature_size)
        self._cache[key] = anchors
        return anchors

    def forward(self, image, feature):
        return self.cached_grid_anchors(tuple(image.shape[-2:]), tuple(feature.shape[-2:]))


class RPN(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 24, 3, stride=4, padding=1), nn.ReLU(),
            nn.Conv2d(24, 32, 3, stride=2, padding=1), nn.ReLU(),
        )
        self.anchors = AnchorGenerator()
        self.cls = nn.Conv2d(32, 6, 1)
        self.reg = nn.Conv2d(32, 24, 1)

    def forward(self, image):
        f = self.body(image)
        return self.cls(f), self.reg(f), self.anchors(image, f)


def box_iou_one(anchors, box):
    lt = torch.maximum(anchors[:, :2], box[:2])
    rb = torch.minimum(anchors[:, 2:], box[2:])
    inter = (rb - lt).clamp(min=0).prod(1)
    area = (anchors[:, 2:] - anchors[:, :2]).prod(1)
    return inter / (area + (box[2:] - box[:2]).prod() - inter)


model = RPN()
optim = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

for step in range(STEPS):
    h = int(torch.randint(200, 440, (1,)))
    w = int(torch.randint(200, 440, (1,)))
    image = torch.randn(1, 1, h, w) * 0.2
    cx, cy = int(torch.randint(40, w - 40, (1,))), int(torch.randint(40, h - 40, (1,)))
    half = int(torch.randint(10, 32, (1,)))
    image[..., cy - half:cy + half, cx - half:cx + half] += 1.0
    box = torch.tensor([cx - half, cy - half, cx + half, cy + half], dtype=torch.float32)

    logits, deltas, anchors = model(image)
    iou = box_iou_one(anchors, box)
    labels = (iou > 0.5).float()
    scores = logits.permute(0, 2, 3, 1).reshape(-1)
    loss = F.binary_cross_entropy_with_logits(scores, labels, pos_weight=torch.tensor(20.0))
    pos = labels.bool()
    if pos.any():
        d = deltas.permute(0, 2, 3, 1).reshape(-1, 4)[pos]
        loss = loss + F.smooth_l1_loss(d, (box - anchors[pos]) / 32)
    optim.zero_grad()
    loss.backward()
    optim.step()
    if step % 200 == 0:
        print(f"step {step} loss {loss.item():.4f}", flush=True)
