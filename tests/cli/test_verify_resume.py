"""`holdwater verify-resume` proves that an interrupted run is exact, and refutes it where it is not."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]
SCRIPT = """
import sys
import torch
import holdwater
torch.manual_seed(0)
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.Adam(model.parameters())
holdwater.resumable("model", model)
if len(sys.argv) == 1:
    holdwater.resumable("optimizer", optimizer)
for step in holdwater.steps(30):
    optimizer.zero_grad()
    model(torch.randn(3, 4)).pow(2).mean().backward()
    optimizer.step()
"""


class TestVerifyResume:
    """Our own trainer, and somebody's script."""

    def test_proves_our_trainer(self, holdwater: Run, tmp_path: Path) -> None:
        """Each checkpoint, to the bit."""
        flags = ("--preset", "tiny", "--steps", "40", "--sample-length", "0", "--max-memory", "4GB")

        done = holdwater("verify-resume", "--every", "20", "--json", "v.json", "train", *flags)

        assert done.returncode == 0, done.stderr
        found = json.loads((tmp_path / "v.json").read_text())
        assert (found["exact"], found["steps"]) == (True, [0, 20, 40])
        assert done.stdout.startswith("exact: ")

    def test_proves_a_script(self, holdwater: Run, tmp_path: Path) -> None:
        """What it does not seed is the same in each process."""
        (tmp_path / "train.py").write_text(SCRIPT)

        done = holdwater("verify-resume", "--every", "10", "run", "train.py")

        assert done.returncode == 0, done.stderr
        assert "checkpoints of steps 0, 10, 20, 30 agree to the bit" in done.stdout
        assert "left out" not in done.stdout

    def test_refuses_a_script_that_forgets_its_optimizer(self, holdwater: Run, tmp_path: Path) -> None:
        """Its process is not replaced, and the optimizer is named."""
        (tmp_path / "train.py").write_text(SCRIPT)

        done = holdwater("verify-resume", "--every", "10", "run", "train.py", "forget")

        assert done.returncode == 1
        assert "not verified, for the process is not replaced: optimizer" in done.stdout

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ((), "nothing to verify"),
            (("train", "--out", "x"), "--out is set by verify-resume itself"),
            (("run", "plain.py"), "holdwater.resumable"),
        ],
        ids=["nothing", "a folder", "no state"],
    )
    def test_mistakes(self, holdwater: Run, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
        """One message, exit code 2."""
        (tmp_path / "plain.py").write_text("print(1)\n")

        done = holdwater("verify-resume", *words)

        assert done.returncode == 2
        assert message in done.stderr
