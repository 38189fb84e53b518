"""A Lightning module that logs to CSV and TensorBoard, with accumulated gradients, as its guide writes it."""

import json

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split


class LitClassifier(L.LightningModule):
    """A small classifier."""

    def __init__(self, width=128, rate=1e-3):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, 4))

    def training_step(self, batch, batch_idx):
        """One step."""
        x, y = batch
        loss = nn.functional.cross_entropy(self.net(x), y)
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        """One batch held out."""
        x, y = batch
        scores = self.net(x)
        self.log_dict({
            "val_loss": nn.functional.cross_entropy(scores, y),
            "val_acc": (scores.argmax(1) == y).float().mean(),
        })

    def configure_optimizers(self):
        """AdamW with a cosine."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.hparams.rate)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12)]


L.seed_everything(7, workers=True)
features = torch.randn(4000, 64)
train, val = random_split(TensorDataset(features, features[:, :4].argmax(1)), [3200, 800])
trainer = L.Trainer(
    max_epochs=12, accelerator="cpu", enable_progress_bar=False, accumulate_grad_batches=2, log_every_n_steps=5,
    logger=[CSVLogger("logs"), TensorBoardLogger("tb")], deterministic=True,
    callbacks=[LearningRateMonitor("step"), EarlyStopping("val_loss", patience=12)],
)  # fmt: skip
module = LitClassifier()
trainer.fit(module, DataLoader(train, batch_size=16, shuffle=True), DataLoader(val, batch_size=64))
print("LOSSES", json.dumps([trainer.global_step, *(value.item() for value in trainer.callback_metrics.values())]))
