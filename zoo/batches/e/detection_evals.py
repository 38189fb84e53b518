"""Single-object detector with a periodic evaluation in the manner of a COCO evaluator."""
from collections import deque

import numpy as np
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(15)
rng = np.random.default_rng(15)
STEPS, EVAL_PERIOD, EVAL_BATCHES, BATCH, SIDE, QUERIES = 2400, 300, 40, 24, 32, 40


def make_batch():
    images = 0.2 * rng.random((BATCH, 1, SIDE, SIDE), dtype=np.float32)
    boxes = rng.integers(0, SIDE - 8, (BATCH, 2))
    for image, (row, column) in zip(images, boxes):
        image[0, row:row + 8, column:column + 8] += 0.7
    return torch.from_numpy(images), torch.from_numpy(boxes.astype(np.float32) / SIDE)


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 16, 5, stride=2), nn.ReLU(), nn.Conv2d(16, 24, 3, stride=2), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(24 * 6 * 6, QUERIES * 3)

    def forward(self, images):
        return self.head(self.body(images)).view(-1, QUERIES, 3)


class InstanceEvaluator:
    def reset(self):
        self.predictions = []

    def process(self, first_id, outputs):
        for offset, queries in enumerate(outputs.tolist()):
            for row, column, score in queries:
                self.predictions.append({"image_id": first_id + offset, "category_id": 1,
                                         "bbox": [column * SIDE, row * SIDE, 8.0, 8.0], "score": score})

    def evaluate(self, truth):
        best = {}
        for p in self.predictions:
            if p["image_id"] not in best or p["score"] > best[p["image_id"]]["score"]:
                best[p["image_id"]] = p
        return float(np.mean([abs(best[i]["bbox"][0] - t[1] * SIDE) for i, t in enumerate(truth)]))


model, evaluator, recent = Detector(), InstanceEvaluator(), deque(maxlen=20)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
held_out = [make_batch() for _ in range(EVAL_BATCHES)]
truth = torch.cat([boxes for _, boxes in held_out]).tolist()
for step in range(1, STEPS + 1):
    images, boxes = make_batch()
    error = (model(images)[..., :2] - boxes[:, None]).abs().mean(2)
    loss = error.mean() + error.amin(1).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    recent.append(loss.item())
    if step % EVAL_PERIOD == 0:
        evaluator.reset()
        with torch.no_grad():
            for n, (images, _) in enumerate(held_out):
                evaluator.process(n * BATCH, model(images))
        print(f"step {step} loss {np.mean(recent):.4f} error {evaluator.evaluate(truth):.2f} px")
        evaluator.reset()
print(f"{STEPS} steps")
