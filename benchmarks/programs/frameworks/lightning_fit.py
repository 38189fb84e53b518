"""A Lightning module, with `LightningCallback` or without: `python lightning_fit.py STEPS [guard] [leak] [kill]`."""

import json
import logging
import os
import signal
import sys
import warnings

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lightning.pytorch as L
from turns import Turns

warnings.simplefilter("ignore")
logging.getLogger("lightning").setLevel(logging.ERROR)
torch.set_num_threads(1)
kept = []


class Net(L.LightningModule):
    """A small perceptron."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(256, 2048), nn.ReLU(), nn.Dropout(0.1), nn.Linear(2048, 10))

    def training_step(self, batch, index):
        """One batch."""
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        if "leak" in sys.argv:
            kept.append(torch.ones(16_000))  # HERE
        return loss

    def validation_step(self, batch, index):
        """One batch held out."""
        self.log("val", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class Steps(L.Callback):
    """Keeps the losses, takes turns, and kills its own process once."""

    def __init__(self):
        self.losses, self.turns = [], Turns()

    def state_dict(self):
        return {"losses": self.losses}

    def load_state_dict(self, state):
        self.losses = state["losses"]

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        self.losses.append(outputs["loss"].item())
        self.turns.step()
        if self.turns.over:
            trainer.should_stop = True
        if "kill" in sys.argv and trainer.global_step == 700 and not os.path.exists("killed"):
            open("killed", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)


L.seed_everything(1, verbose=False)
data = TensorDataset(torch.randn(6400, 256), torch.randint(0, 10, (6400,)))
held_out = TensorDataset(*(part[:320] for part in data.tensors))
steps, memory = Steps(), None
callbacks = [steps]
if "guard" in sys.argv:
    from holdwater.frameworks.lightning import LightningCallback

    memory = LightningCallback()
    callbacks = [memory, steps]
trainer = L.Trainer(
    max_epochs=-1, max_steps=int(sys.argv[1]), accelerator="cpu", logger=False, enable_progress_bar=False,
    enable_model_summary=False, enable_checkpointing=False, callbacks=callbacks,
)  # fmt: skip
trainer.fit(
    Net(), DataLoader(data, batch_size=32, shuffle=True), DataLoader(held_out, batch_size=32),
    ckpt_path=None if memory is None else memory.last_checkpoint(),
)  # fmt: skip
weights = [weight.double().sum().item().hex() for weight in trainer.model.parameters()]
summary = None if memory is None else memory.summary
print("FOUND", json.dumps({"losses": steps.losses, "weights": weights, "summary": summary}))
