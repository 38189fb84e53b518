"""`holdwater train --model` on a CUDA device, whose processes are replaced and killed beside kept weights."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import load_file

from tests.small_models import make_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]


@pytest.fixture
def start(tmp_path: Path) -> Any:
    """Starts a run by its name; steps of this model are fused."""
    make_model(tmp_path / "model", "Llama", heads=1)
    rows = [{"text": f"{number} holds water, {number * 7} holds fast"} for number in range(200)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def start(out: str, *flags: str) -> "subprocess.Popen[str]":
        command = [
            sys.executable, "-m", "holdwater", "train", "--model", "model", "--data", "rows.jsonl", "--device", "cuda",
            "--steps", "23", "--train-seq-length", "64", "--batch-size", "2", "--lora-dropout", "0.1", "--out", out,
            "--checkpoint-interval", "5", "--eval-interval", "10", "--json", f"{out}.json", *flags,
        ]  # fmt: skip
        return subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)

    return start


def tensors(folder: Path) -> dict[str, bytes]:
    """What the newest checkpoint of a run holds."""
    newest = max((folder / "checkpoints").glob("step-*"))
    assert newest.name == "step-00000023"
    files = sorted(newest.glob("*.safetensors"))
    return {f"{file.name}/{name}": value.tobytes() for file in files for name, value in load_file(file).items()}


def finish(process: "subprocess.Popen[str]") -> str:
    """Wait for a run; return what it said."""
    said = process.communicate(timeout=240)[1]
    assert process.returncode == 0, said
    return said


class TestRebirth:
    """One process after another."""

    def test_replaced_processes_leave_the_same_tensors(self, start: Any, tmp_path: Path) -> None:
        """Frozen and trained weights stay on the device between them."""
        straight, replaced = start("straight"), start("replaced", "--reload-interval", "4")

        said = finish(straight), finish(replaced)

        assert tensors(tmp_path / "replaced") == tensors(tmp_path / "straight")
        verdict = json.loads((tmp_path / "replaced.json").read_text())
        took = [one["seconds"] for one in verdict["actions"] if one["action"] == "recycle"]
        assert len(took) == 5
        straight_verdict = json.loads((tmp_path / "straight.json").read_text())
        assert straight_verdict["static_step"]["steps"] == 23
        assert straight_verdict["static_step"]["in_a_row"] >= 15
        assert "fused, and captured" in said[1]
        assert "weight_server" not in said[1]  # nothing to complain of

    @pytest.mark.parametrize("bits", ["4", "8"])
    def test_a_model_of_another_kind_is_captured_beside_weights_of_few_bits(
        self, start: Any, tmp_path: Path, bits: str
    ) -> None:
        """Under autograd, and exact in fresh processes; nobody keeps its weights."""
        make_model(tmp_path / "other", "GPT2")
        flags = ("--model", "other", "--quantize", bits, "--train-seq-length", "32")
        straight, replaced = start("straight", *flags), start("replaced", *flags, "--reload-interval", "9")

        said = finish(straight), finish(replaced)

        assert tensors(tmp_path / "replaced") == tensors(tmp_path / "straight")
        assert "under autograd, and is captured" in said[0]
        assert "cannot be captured" not in said[0]

    def test_a_killed_process_leaves_the_frozen_weights(self, start: Any, tmp_path: Path) -> None:
        """The next one goes on from the newest checkpoint, to the same end."""
        (tmp_path / "deadly.py").write_text(
            "import os, pathlib\n"
            "def act(guard):\n"
            "    if guard.step_number == 13 and not os.path.exists('acted'):\n"
            "        pathlib.Path('acted').touch(); os.kill(os.getpid(), 9)\n"
        )

        said = finish(start("killed", "--reload-interval", "1000", "--callback", "deadly:act"))
        finish(start("straight"))

        assert tensors(tmp_path / "killed") == tensors(tmp_path / "straight")
        assert "SIGKILL after step 13" in said
        assert "weight_server" not in said  # it has refused nothing: the frozen weights were there
