"""A real MLX script under a real supervisor, on a rehearsed Mac: replaced in time, and started again after an abort."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

pytest.importorskip("mlx.core", reason="MLX is not installed")

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "programs" / "unified_leak.py"
SUPERVISOR = """
import sys
from holdwater.cli.main import main
from holdwater.testing import StandInMetal
with StandInMetal().installed():
    sys.exit(main(sys.argv[1:]))
"""


def weights_of(folder: Path, *words: str, flags: tuple[str, ...] | None) -> tuple[dict[str, np.ndarray], str]:
    """Run the program; return its weights, and what was written to standard error.

    Args:
        folder: For its files.
        words: Its flags.
        flags: Of `holdwater run --supervise`; None runs it alone.
    """
    weights = folder / f"weights-{flags is None}.safetensors"
    program = [str(PROGRAM), "40", str(weights), *words]
    supervised = ["-c", SUPERVISOR, "run", "--supervise", "--max-memory", "70GB", "--out", str(folder / "run")]
    command = program if flags is None else [*supervised, *flags, *program]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True)
    return load_file(weights), done.stderr


def test_a_leak_of_2000_mb_a_step_is_survived_to_the_bit(tmp_path: Path) -> None:
    """40 steps would take 97 GB; the weights are those of the run without the leak."""
    found, said = weights_of(tmp_path, "--leak", flags=())
    expected, _ = weights_of(tmp_path, flags=None)

    assert "replaced" in said
    assert {name: part.tobytes() for name, part in found.items()} == {
        name: part.tobytes() for name, part in expected.items()
    }


def test_the_process_after_an_abort_takes_smaller_micro_batches(tmp_path: Path) -> None:
    """The effective batch is the same, so the weights differ by rounding only."""
    found, said = weights_of(tmp_path, "--abort-at", "25", flags=("--checkpoint-interval", "10"))
    expected, _ = weights_of(tmp_path, flags=None)

    assert "Metal aborted the process" in said
    assert all(np.abs(found[name] - expected[name]).max() < 1e-5 for name in expected)
    assert any((found[name] != expected[name]).any() for name in expected)
