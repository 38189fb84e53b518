"""Interactive segmentation: seed clicks are spread with a random walker to make dense targets."""
import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as sla
import torch
from torch import nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(9)
rng = np.random.default_rng(9)

SIZE = 28
STEPS = 3300
NEW_IMAGE_EVERY = 17

ids = np.arange(SIZE * SIZE).reshape(SIZE, SIZE)
EDGES = np.concatenate([
    np.stack([ids[:, :-1].ravel(), ids[:, 1:].ravel()], 1),
    np.stack([ids[:-1].ravel(), ids[1:].ravel()], 1),
])


def laplacian(image):
    flat = image.ravel()
    w = np.exp(-8.0 * np.abs(flat[EDGES[:, 0]] - flat[EDGES[:, 1]])) + 1e-4
    n = flat.size
    a = sp.coo_matrix((np.r_[w, w], (np.r_[EDGES[:, 0], EDGES[:, 1]], np.r_[EDGES[:, 1], EDGES[:, 0]])), shape=(n, n))
    return (sp.diags(np.asarray(a.sum(1)).ravel() + 0.01) - a).tocsc()


class RandomWalker:
    def __init__(self):
        self.factors = {}

    def spread(self, image_id, image, seeds):
        lu = self.factors.get(image_id)
        if lu is None:
            lu = sla.splu(laplacian(image))
            self.factors[image_id] = lu
        return lu.solve(seeds.ravel()).reshape(image.shape)


def scene():
    image = rng.normal(0, 0.1, (SIZE, SIZE))
    y, x = rng.integers(6, SIZE - 14, 2)
    image[y:y + 10, x:x + 10] += 1.0
    return image, (y + 5, x + 5)


walker = RandomWalker()
net = nn.Sequential(nn.Conv2d(2, 48, 3, padding=1), nn.ReLU(), nn.Conv2d(48, 48, 3, padding=1), nn.ReLU(), nn.Conv2d(48, 1, 1))
opt = torch.optim.Adam(net.parameters(), lr=2e-3)

for step in range(STEPS):
    if step % NEW_IMAGE_EVERY == 0:
        image_id = f"scan_{step // NEW_IMAGE_EVERY:06d}"
        image, centre = scene()
    xs, ts = [], []
    for _ in range(4):
        seeds = np.zeros((SIZE, SIZE))
        seeds[centre[0] + rng.integers(-3, 4), centre[1] + rng.integers(-3, 4)] = 1.0
        dense = walker.spread(image_id, image, seeds)
        xs.append(np.stack([image, seeds]))
        ts.append((dense > 0.2 * dense.max()).astype(np.float32))
    x = torch.tensor(np.stack(xs), dtype=torch.float32)
    t = torch.tensor(np.stack(ts))
    loss = F.binary_cross_entropy_with_logits(net(x)[:, 0], t)
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 150 == 0:
        print(f"step {step} loss {loss.item():.4f}", flush=True)
