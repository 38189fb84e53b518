"""`holdwater train --model` on pictures as users call it: a small model, the installed command, replaced processes."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tests.small_vision_models import make_vision_model

pytest.importorskip("transformers", reason="Transformers is not installed")
image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

Run = Callable[..., "subprocess.CompletedProcess[str]"]
FLAGS = (
    *("train", "--model", "model", "--data", "rows.jsonl", "--device", "cpu", "--threads", "1"),
    *("--max-memory", "6GB", "--train-seq-length", "160", "--batch-size", "2", "--lora-rank", "4"),
    *("--lora-dropout", "0.1", "--eval-batches", "2", "--sample-length", "4", "--warmup-steps", "2"),
)


def write_rows(folder: Path, count: int = 30) -> None:
    """Examples with a picture each."""
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for number in range(count):
            colour = ("red", "blue")[number % 2]
            image.new("RGB", (40 + 3 * number, 120 - 2 * number), colour).save(folder / f"{number}.png")
            row = {
                "image": f"{number}.png",
                "prompt": "what is in this picture?",
                "completion": f"a {colour} square",
            }
            file.write(json.dumps(row) + "\n")


def tensors(run: Path) -> dict[str, bytes]:
    """The bytes of every tensor of the newest checkpoint of a run."""
    newest = max((run / "checkpoints").glob("step-*"))
    return {
        f"{path.name}/{name}": array.tobytes()
        for path in sorted(newest.glob("*.safetensors"))
        for name, array in load_file(path).items()
    }


@pytest.mark.parametrize(
    ("family", "more"),
    [("smolvlm", ()), ("qwen2_5_vl", ("--vision-cache", "50MB")), ("smolvlm", ("--quantize", "8"))],
)
def test_goes_on_exactly_in_fresh_processes(
    holdwater: Run, tmp_path: Path, family: str, more: tuple[str, ...]
) -> None:
    """Replaced twice: the same bytes as a straight run."""
    make_vision_model(tmp_path / "model", family)
    write_rows(tmp_path)
    flags = (*FLAGS, "--steps", "24", *more)

    straight = holdwater(*flags, "--out", "straight")
    replaced = holdwater(*flags, "--out", "replaced", "--reload-interval", "10", "--json", "v.json")

    assert [straight.returncode, replaced.returncode] == [0, 0], straight.stderr + replaced.stderr
    assert tensors(tmp_path / "replaced") == tensors(tmp_path / "straight")
    actions = json.loads((tmp_path / "v.json").read_text())["actions"]
    assert [action["action"] for action in actions].count("recycle") == 2
