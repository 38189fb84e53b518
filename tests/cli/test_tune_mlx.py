"""`holdwater train --backend mlx` as users call it: small models from a folder, the installed command."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tests.small_models import make_model

pytest.importorskip("mlx.core", reason="needs MLX: pip install mlx (on Linux mlx[cpu])")
pytest.importorskip("mlx_lm", reason="needs mlx_lm: pip install mlx-lm")

Run = Callable[..., "subprocess.CompletedProcess[str]"]
SMALL = (
    *("train", "--backend", "mlx", "--model", "model", "--data", "rows.jsonl", "--max-memory", "6GB"),
    *("--train-seq-length", "32", "--batch-size", "2", "--lora-rank", "4", "--eval-batches", "2"),
    *("--sample-length", "4", "--warmup-steps", "2", "--learning-rate", "0.01"),
)


@pytest.fixture(autouse=True)
def model(tmp_path: Path) -> None:
    """A small Llama, and sums to learn."""
    make_model(tmp_path / "model", "Llama")
    sums = [{"prompt": f"{a}+{b}=", "completion": str(a + b)} for a in range(12) for b in range(10)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in sums), encoding="utf-8")


def arrays(run: Path) -> dict[str, bytes]:
    """The bytes of every array of the newest checkpoint of a run."""
    newest = max((run / "checkpoints").glob("step-*"))
    return {
        f"{path.name}/{name}": array.tobytes()
        for path in sorted(newest.glob("*.safetensors"))
        for name, array in load_file(path).items()
    }


def test_fine_tunes_and_merges(holdwater: Run, tmp_path: Path) -> None:
    """With a verdict, limits of MLX, a loss that falls, and a whole model at the end."""
    flags = ("--steps", "40", "--eval-interval", "20", "--out", "run", "--json", "v.json", "--merged", "merged")

    done = holdwater(*SMALL, *flags)

    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "v.json").read_text())["steps"] == 40
    assert re.search(r"MLX memory: .* -> 6\.00 GB", done.stderr)
    losses = re.findall(r"validation loss ([\d.]+)", done.stdout)
    assert float(losses[1]) < float(losses[0])
    assert " → " in done.stdout
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        path.name for path in (tmp_path / "merged").iterdir()
    }
    config = json.loads((tmp_path / "run/checkpoints/step-00000040/adapter_config.json").read_text())
    assert config["lora_parameters"]["rank"] == 4


@pytest.mark.slow
def test_goes_on_exactly_in_fresh_processes(holdwater: Run, tmp_path: Path) -> None:
    """Replaced twice, with dropout: the same bytes as a straight run; resumed for more steps, too."""
    flags = (*SMALL, "--lora-dropout", "0.1")

    straight = holdwater(*flags, "--steps", "24", "--out", "straight")
    replaced = holdwater(
        *flags, "--steps", "24", "--out", "replaced", "--reload-interval", "9", "--json", "v.json"
    )

    assert [straight.returncode, replaced.returncode] == [0, 0], replaced.stderr
    assert arrays(tmp_path / "replaced") == arrays(tmp_path / "straight")
    actions = json.loads((tmp_path / "v.json").read_text())["actions"]
    assert [action["action"] for action in actions].count("recycle") == 2


@pytest.mark.slow
def test_goes_on_exactly_after_it_was_killed(holdwater: Run, tmp_path: Path) -> None:
    """`kill -9` to command and training process, then `--resume`."""
    flags = (*SMALL, "--lora-dropout", "0.1", "--steps", "60", "--checkpoint-interval", "7")
    straight = holdwater(*flags, "--out", "straight")
    program = [str(Path(sys.executable).with_name("holdwater")), *flags, "--out", "killed"]
    with subprocess.Popen(program, cwd=tmp_path, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        checkpoints = tmp_path / "killed/checkpoints"
        while process.poll() is None and not (checkpoints / "step-00000014").exists():
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)

    resumed = holdwater("train", "--out", "killed", "--resume")

    assert [straight.returncode, resumed.returncode] == [0, 0], resumed.stderr
    assert "resuming from step" in resumed.stderr
    assert arrays(tmp_path / "killed") == arrays(tmp_path / "straight")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--threads", "1"), "threads is 1, but it counts PyTorch's threads, and MLX has its own; leave it out"),
        (("--lora-rank", "0"), "lora_rank is 0, but --backend mlx trains adapters only; write --lora-rank 8, say"),
    ],
)
def test_refuses_in_one_line(holdwater: Run, flags: tuple[str, ...], said: str) -> None:
    """Before anything is loaded."""
    done = holdwater(*SMALL, *flags, "--out", "run")

    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("missing", ["mlx", "mlx_lm", "torch"])
def test_says_what_is_not_installed(holdwater: Run, tmp_path: Path, missing: str) -> None:
    """And what to write."""
    (tmp_path / "without").mkdir()
    hidden = f"import sys\nsys.modules[{missing!r}] = None\n"
    (tmp_path / "without/sitecustomize.py").write_text(hidden, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path / "without"), os.environ.get("PYTHONPATH", "")])

    done = holdwater(*SMALL, "--out", "run", env={**os.environ, "PYTHONPATH": path})

    assert done.returncode == 2
    assert f"needs {missing}, which cannot be imported" in done.stderr
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr


def test_plan_refuses(holdwater: Run) -> None:
    """It predicts PyTorch's steps."""
    done = holdwater("plan", "--backend", "mlx", "--model", "model")

    assert done.returncode == 2
    assert "backend is mlx, but plan predicts the memory of PyTorch's steps" in done.stderr
