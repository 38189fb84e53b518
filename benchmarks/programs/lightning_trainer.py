"""Lightning's autoencoder from its first page, on pictures made here, with validation and checkpoints."""

import json

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from stopwatch import Stopwatch


class LitAutoEncoder(L.LightningModule):
    """An encoder and a decoder."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(28 * 28, 128), nn.ReLU(), nn.Linear(128, 3))
        self.decoder = nn.Sequential(nn.Linear(3, 128), nn.ReLU(), nn.Linear(128, 28 * 28))

    def loss(self, batch):
        """Mean squared error of what comes back."""
        (x,) = batch
        x = x.view(x.size(0), -1)
        return nn.functional.mse_loss(self.decoder(self.encoder(x)), x)

    def training_step(self, batch, batch_idx):
        """One step."""
        loss = self.loss(batch)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        """One batch held out."""
        self.log("val_loss", self.loss(batch), prog_bar=True)

    def configure_optimizers(self):
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class Times(Callback):
    """Notes the end of each batch, and the losses after each epoch."""

    def __init__(self):
        self.losses = []

    def on_train_batch_end(self, *_, **__):
        watch.step()

    def on_validation_end(self, trainer, module):
        self.losses.append(float(trainer.callback_metrics["val_loss"]))


watch = Stopwatch()
L.seed_everything(1)
pictures = torch.rand(6000, 1, 28, 28)
train, val = random_split(TensorDataset(pictures), [5000, 1000])
times = Times()
trainer = L.Trainer(
    max_epochs=16, accelerator="cpu", enable_progress_bar=False, logger=False,
    callbacks=[times, ModelCheckpoint("checkpoints", monitor="val_loss", save_top_k=2)],
)  # fmt: skip
trainer.fit(LitAutoEncoder(), DataLoader(train, batch_size=16, shuffle=True), DataLoader(val, batch_size=64))
watch.write()
print("LOSSES", json.dumps(times.losses))
