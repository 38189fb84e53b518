"""A small ResNet of timm on pictures made here, with its optimizer, schedule, loss, mixup and average of weights."""

import json

import timm
import timm.data
import timm.loss
import timm.optim
import timm.scheduler
import timm.utils
import torch
from torch.utils.data import DataLoader, Dataset


class Pictures(Dataset):
    """Coloured noise; the class is the brightest colour."""

    def __len__(self):
        return 480

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        picture = torch.rand(3, 48, 48, generator=generator)
        picture[index % 3] += 0.1
        return picture, index % 3


timm.utils.random_seed(42, 0)
model = timm.create_model("resnet10t", pretrained=False, num_classes=3)
optimizer = timm.optim.create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05)
scheduler, _ = timm.scheduler.create_scheduler_v2(optimizer, sched="cosine", num_epochs=4, warmup_epochs=1)
mixup = timm.data.Mixup(mixup_alpha=0.2, num_classes=3)
criterion = timm.loss.SoftTargetCrossEntropy()
average = timm.utils.ModelEmaV3(model, decay=0.99)
loader = DataLoader(Pictures(), batch_size=16, shuffle=True, num_workers=1)
losses = []
for epoch in range(4):
    model.train()
    for pictures, labels in loader:
        pictures, labels = mixup(pictures, labels)
        loss = criterion(model(pictures), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update(model)
        losses.append(loss.item())
    scheduler.step(epoch + 1)
print("LOSSES", json.dumps(losses))
