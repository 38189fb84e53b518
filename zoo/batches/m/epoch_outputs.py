"""Detection head with long epochs; step outputs are gathered for the epoch's metrics."""
import time

import torch
import torch.nn as nn

torch.set_num_threads(1)
torch.manual_seed(0)

EPOCHS = 7
PER_EPOCH = 450
ANCHORS = 1024


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.box = nn.Linear(64, 4)
        self.score = nn.Linear(64, 6)

    def forward(self, x):
        y = self.trunk(x)
        return self.box(y), self.score(y)


class DetectorModule:
    def __init__(self):
        self.net = Head()
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-3)
        self.training_step_outputs = []

    def training_step(self, x, boxes, labels):
        pred, score = self.net(x)
        loss = nn.functional.smooth_l1_loss(pred, boxes) + nn.functional.cross_entropy(score.flatten(0, 1), labels.flatten())
        self.training_step_outputs.append({"loss": loss.detach(), "boxes": pred.detach(), "scores": score.detach()})
        return loss

    def on_train_epoch_end(self):
        boxes = [o["boxes"].mean() for o in self.training_step_outputs]
        top = [o["scores"].max(-1).values.mean() for o in self.training_step_outputs]
        loss = torch.stack([o["loss"] for o in self.training_step_outputs]).mean()
        self.training_step_outputs.clear()
        return loss.item(), torch.stack(boxes).mean().item(), torch.stack(top).mean().item()


def main():
    module = DetectorModule()
    start = time.time()
    for epoch in range(EPOCHS):
        for batch in range(PER_EPOCH):
            x = torch.randn(8, ANCHORS, 32)
            loss = module.training_step(x, x[..., :4] * 0.5, x[..., :6].argmax(-1))
            module.optimizer.zero_grad()
            loss.backward()
            module.optimizer.step()
            if batch % 150 == 0:
                print(f"epoch {epoch} batch {batch} loss {loss.item():.3f} {time.time() - start:.1f}s")
        print("epoch loss %.3f box %.3f score %.3f" % module.on_train_epoch_end())


if __name__ == "__main__":
    main()
