"""A loss that is not finite: the run stops, keeps its last finite checkpoint, and goes on from there in a branch."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from tests.small_models import make_model

Run = Callable[..., "subprocess.CompletedProcess[str]"]
TINY = (
    *("train", "--preset", "tiny", "--train-seq-length", "16", "--eval-batches", "2", "--sample-length", "8"),
    *("--threads", "1", "--max-memory", "4GB", "--data", "text.txt", "--steps", "200", "--warmup-steps", "200"),
    *("--checkpoint-interval", "60", "--weight-decay", "10"),
)
DIVERGES = ("--learning-rate", "1")
"""As it rises above 0.2, a weight decay of 10 makes weights grow at each step."""
SMALL = (
    *("train", "--model", "model", "--data", "rows.jsonl", "--device", "cpu", "--threads", "1"),
    *("--max-memory", "6GB", "--train-seq-length", "32", "--lora-rank", "4", "--eval-batches", "2"),
    *("--sample-length", "4", "--warmup-steps", "200", "--steps", "200", "--checkpoint-interval", "40"),
    *("--weight-decay", "10"),
)


def newest(run: Path) -> Path:
    """The newest checkpoint of a run."""
    return max((run / "checkpoints").glob("step-*"))


def is_finite(checkpoint: Path) -> bool:
    """Whether all numbers of a checkpoint are finite."""
    files = [path for path in checkpoint.glob("*.safetensors") if path.name != "random.safetensors"]
    return all(bool(np.isfinite(array).all()) for path in files for array in load_file(path).values())


@pytest.mark.usefixtures("text_file")
class TestPretraining:
    """An absurd learning rate."""

    def test_stops_within_a_step_and_goes_on_in_a_branch(self, holdwater: Run, tmp_path: Path) -> None:
        """Exit code 2; the newest checkpoint is finite, and a small learning rate finishes from there."""
        stopped = holdwater(*TINY, *DIVERGES, "--out", "run", "--json", "v.json")
        found = json.loads((tmp_path / "v.json").read_text())
        last = newest(tmp_path / "run")
        words = ("train", "--resume", str(last), "--out", "branch", "--learning-rate", "0.0001", "--steps", "80")
        branch = holdwater(*words, "--json", "b.json")
        again = holdwater("train", "--resume", "--out", "branch")

        assert stopped.returncode == found["exit_code"] == 2, stopped.stderr
        first = found["loss"]["first_nonfinite_step"]
        assert first is not None
        assert found["steps"] - first in {0, 1}
        assert f"the loss of step {first} is " in stopped.stderr
        assert (
            f"holdwater train --resume run/checkpoints/{last.name} --out NEW --learning-rate 0.5" in stopped.stderr
        )
        assert "Traceback" not in stopped.stderr
        assert is_finite(last)
        assert branch.returncode == again.returncode == 0, branch.stderr + again.stderr
        assert json.loads((tmp_path / "b.json").read_text())["loss"] == {"first_nonfinite_step": None}
        assert yaml.safe_load((tmp_path / "branch/config.yaml").read_text())["learning_rate"] == 0.0001
        assert is_finite(newest(tmp_path / "branch"))
        assert newest(tmp_path / "branch").name == "step-00000080"

    def test_a_checkpoint_that_is_not_finite_is_never_written(self, holdwater: Run, tmp_path: Path) -> None:
        """Where training continues all the same, the newest checkpoint is the last finite one."""
        done = holdwater(*TINY, *DIVERGES, "--out", "run", "--non-finite", "continue", "--json", "v.json")

        found = json.loads((tmp_path / "v.json").read_text())
        assert (done.returncode, found["steps"]) == (0, 200), done.stderr
        assert found["loss"]["first_nonfinite_step"] is not None
        assert done.stderr.count("training continues") == 1
        assert is_finite(newest(tmp_path / "run"))
        assert newest(tmp_path / "run").name < "step-00000200"

    def test_the_report_names_the_step(self, holdwater: Run, tmp_path: Path) -> None:
        """In the terminal and on the page."""
        holdwater(*TINY, *DIVERGES, "--out", "run", "--json", "v.json")
        first = json.loads((tmp_path / "v.json").read_text())["loss"]["first_nonfinite_step"]

        report = holdwater("report", "run")

        words = f"The loss of step {first} was the first that is not finite."
        assert words in report.stdout
        assert words in (tmp_path / "run/report.html").read_text()

    def test_a_branch_needs_a_folder_of_its_own(self, holdwater: Run, tmp_path: Path) -> None:
        """In its own folder a run keeps its learning rate; the folder of another run is not mixed with it."""
        flags = (*TINY, "--steps", "20")
        assert holdwater(*flags, "--out", "run").returncode == holdwater(*flags, "--out", "other").returncode == 0
        last = str(newest(tmp_path / "run"))

        same = holdwater(*TINY, "--out", "run", "--resume", "--learning-rate", "0.5")
        mixed = holdwater("train", "--resume", last, "--out", "other", "--learning-rate", "0.5")
        other = holdwater("train", "--resume", last, "--out", "new", "--batch-size", "2")

        assert [same.returncode, mixed.returncode, other.returncode] == [2, 2, 2]
        assert "was trained with learning_rate = 0.001, but this run has 0.5" in same.stderr
        assert "from this checkpoint with --resume CHECKPOINT" in same.stderr
        assert "--out other holds a run already" in mixed.stderr
        assert "was trained with batch_size = 1, but this run has 2" in other.stderr


def test_fine_tuning_stops_and_goes_on_in_a_branch(holdwater: Run, tmp_path: Path) -> None:
    """As pretraining does."""
    make_model(tmp_path / "model", "Llama")
    rows = [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a in range(12) for b in range(10)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    stopped = holdwater(*SMALL, "--learning-rate", "1", "--out", "run", "--json", "v.json")
    found = json.loads((tmp_path / "v.json").read_text())
    last = newest(tmp_path / "run")
    words = ("train", "--resume", str(last), "--out", "branch", "--learning-rate", "0.0001", "--steps", "80")
    branch = holdwater(*words)

    assert stopped.returncode == 2, stopped.stderr
    assert found["steps"] - found["loss"]["first_nonfinite_step"] in {0, 1}
    assert is_finite(last)
    assert branch.returncode == 0, branch.stderr
    assert newest(tmp_path / "branch").name == "step-00000080"
