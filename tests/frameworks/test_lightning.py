"""Tests of the callback for Lightning: real trainers, in processes of their own."""

import importlib
import importlib.util
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from holdwater.store.history import read_history

PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def is_installed(package: str) -> bool:
    """Whether one of Lightning's two packages is there."""
    return importlib.util.find_spec(package.partition(".")[0]) is not None


needs_lightning = pytest.mark.skipif(not is_installed(PACKAGES[0]), reason="Lightning is not installed")

HEAD = """
import json, logging, os, psutil, signal, sys, warnings
import torch
import PACKAGE as L
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from holdwater.frameworks.lightning import LightningCallback

warnings.simplefilter("ignore")
logging.getLogger("PACKAGE".partition(".")[0]).setLevel(logging.ERROR)
torch.set_num_threads(1)
kept = []

class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 1))

    def training_step(self, batch, index):
        if "leak" in sys.argv:
            kept.append(torch.ones(16_000))
        return self.net(batch[0]).pow(2).mean() + torch.rand(()) * self.net[0].weight.mean()

    def validation_step(self, batch, index):
        self.log("val", self.net(batch[0]).mean())

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), 1e-3)
        rate = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "monitor": "val"}}

def fit(callbacks, *, epochs=4, batch=16, path=None, **named):
    L.seed_everything(3, verbose=False)
    data = TensorDataset(torch.randn(400, 32))
    trainer = L.Trainer(
        max_epochs=epochs, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, callbacks=callbacks, **({"logger": False} | named),
    )
    held_out = DataLoader(TensorDataset(data.tensors[0][:64]), batch_size=32)
    trainer.fit(Net(), DataLoader(data, batch_size=batch, shuffle=True), held_out, ckpt_path=path)
    return [weight.double().sum().item().hex() for weight in trainer.model.parameters()]
"""


def script(body: str, package: str = PACKAGES[0]) -> str:
    """A script that trains a small module."""
    return textwrap.dedent(HEAD + body).replace("PACKAGE", package)


def run(folder: Path, text: str, *words: str) -> dict[str, Any]:
    """Run a script; return what it prints as JSON."""
    (folder / "fit.py").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "fit.py", *words], cwd=folder, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found | {"said": done.stderr}


WITHOUT_AND_WITH = """
from PACKAGE.loggers import CSVLogger

class Greedy(L.Callback):
    def on_train_batch_end(self, trainer, *_):
        kept.append(torch.ones(1_000_000))

bare = fit([], accumulate_grad_batches=2)
memory = LightningCallback(out="run", every=5)
guarded = fit([memory], accumulate_grad_batches=2, logger=CSVLogger("logs"))
steps, verdict = memory.summary["steps"], memory.summary["verdict"]
memory = LightningCallback(out="short", max_memory=f"{psutil.Process().memory_info().rss // 1_000_000 + 100}MB")
fit([Greedy(), memory])
kept.clear()
stopped, path = memory.stop_reason, memory.last_checkpoint()
memory = LightningCallback()
fit([memory], path=path)
print(json.dumps({
    "same": bare == guarded, "steps": steps, "verdict": verdict, "stopped": stopped, "path": str(path),
    "at_last": memory.summary["steps"],
}))
"""


@needs_lightning
def test_changes_nothing_and_counts_optimizer_steps(tmp_path: Path) -> None:
    """The weights are those without it, batches whose gradients are accumulated are no steps, and a stop can go on.

    Epochs and evaluations are marked, and the trainer's logger gets rows.
    """
    found = run(tmp_path, script(WITHOUT_AND_WITH))

    marks = [mark.kind for mark in read_history(tmp_path / "run").marks]
    rows = next(tmp_path.glob("logs/*/*/metrics.csv")).read_text().splitlines()
    assert found["same"]
    assert found["steps"] == 52
    assert found["verdict"] in {"flat", "bounded", "cyclic", "unknown"}
    assert (marks.count("epoch"), marks.count("evaluation")) == (4, 4)
    assert "memory/host_mb" in rows[0]
    assert len(rows) > 10
    step = int(found["path"].removesuffix(".ckpt").rpartition("-")[2])
    assert "the budget" in found["stopped"]
    assert 5 < step < 60
    assert found["at_last"] >= 100
    assert f"training ends after step {step}: {found['stopped']}; continue with ckpt_path=" in found["said"]
    assert "inside an epoch" in found["said"]


LEAKS = """
memory = LightningCallback()
fit([memory], epochs=15, batch=4)
print(json.dumps(memory.summary))
"""


@pytest.mark.alone
@pytest.mark.skipif(not any(map(is_installed, PACKAGES)), reason="Lightning is not installed")
def test_names_line_and_holder_of_a_leak(tmp_path: Path) -> None:
    """Without `holdwater run`, and with the package's older name where that is installed."""
    text = script(LEAKS, next(name for name in reversed(PACKAGES) if is_installed(name)))

    summary = run(tmp_path, text, "leak")

    line = 1 + text.splitlines().index("            kept.append(torch.ones(16_000))")
    sites = summary["findings"][0]["sites"]
    assert (summary["verdict"], summary["steps"]) == ("leak", 1500)
    assert ("held", "kept", line) in {(site["role"], site["name"], site["line"]) for site in sites}


SUPERVISED = """
class Killed(L.Callback):
    def on_train_batch_end(self, trainer, *_):
        if "kill" in sys.argv and trainer.global_step == 90 and not os.path.exists("killed"):
            open("killed", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)

memory = LightningCallback()
length = {"max_steps": 100, "epochs": -1} if "steps" in sys.argv else {}
print(json.dumps(fit([memory, Killed()], path=memory.last_checkpoint(), **length)))
"""


@needs_lightning
def test_another_process_continues_exactly(observe: Any, tmp_path: Path) -> None:
    """The process is replaced after the second epoch, killed in the fourth, and the weights are the same.

    Also where the length of the run is given in steps: Lightning counts otherwise then.
    """
    text = script(SUPERVISED)
    (tmp_path / "fit.py").write_text(text, encoding="utf-8")
    bare = subprocess.run([sys.executable, "fit.py"], cwd=tmp_path, capture_output=True, text=True, check=True)

    flags = ("--supervise", "--reload-interval", "40", "--checkpoint-interval", "70", "--out", "run")
    done, verdict = observe(text, *flags, arguments=("kill",))
    others = ("--supervise", "--reload-interval", "40", "--out", "by-steps")
    by_steps, of_steps = observe(text, *others, arguments=("steps",))

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == json.loads(bare.stdout.splitlines()[-1])
    assert (verdict["processes"], verdict["steps"]) == (3, 100)
    assert by_steps.stdout.splitlines()[-1] == done.stdout.splitlines()[-1]
    assert (of_steps["processes"], of_steps["steps"]) == (2, 100)
    assert [path.name for path in tmp_path.glob("run/lightning/*")] == ["step-00000075.ckpt"]


class LightningModule(torch.nn.Module):
    """Stands for Lightning's."""


class Module(LightningModule):
    """A user's module that counts in a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)
        self.seen: list[int] = []


@needs_lightning
class TestWhyNot:
    """What a fresh process could not continue exactly, by its name."""

    def begun(self, **loader: Any) -> tuple[Any, Any, Any, object]:
        """States of a run that has begun: trainer, module and callback with them."""
        states = importlib.import_module("holdwater.frameworks.lightning_checkpoints").EpochStates()
        callback, data = object(), torch.utils.data.TensorDataset(torch.zeros(8, 2))
        trainer = SimpleNamespace(
            train_dataloader=torch.utils.data.DataLoader(data, **loader),
            callbacks=[callback],
            optimizers=[],
            fit_loop=SimpleNamespace(_data_fetcher=None),
        )
        module = Module()
        states.begin(trainer, module, callback)
        return states, trainer, module, callback

    def test_passes_what_a_checkpoint_keeps(self) -> None:
        """Weights change, and are kept."""
        states, *rest = self.begun()
        rest[1].layer.weight.data += 1

        assert states.why_not(*rest) is None

    def test_names_an_attribute(self) -> None:
        """A list that a module fills."""
        states, *rest = self.begun()
        rest[1].seen.append(3)

        assert "self.seen" in states.why_not(*rest)

    def test_names_persistent_workers(self) -> None:
        """Their random states are lost with them."""
        states, *rest = self.begun(num_workers=1, persistent_workers=True)

        assert "persistent workers" in states.why_not(*rest)

    def test_names_a_callback_that_comes_first(self) -> None:
        """Its hook would run twice."""

        class Counting:
            """A user's callback."""

            def on_train_epoch_start(self) -> None:
                """Begin an epoch."""

        states, *rest = self.begun()
        rest[0].callbacks.insert(0, Counting())

        assert "put ours first" in states.why_not(*rest)


def test_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Lightning the import names the package."""
    for name in PACKAGES:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "holdwater.frameworks.lightning", raising=False)

    with pytest.raises(ImportError, match="pip install lightning"):
        importlib.import_module("holdwater.frameworks.lightning")
