"""`holdwater plan` for models with pictures, and its plan of the host's memory against a real run on the CPU."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.small_vision_models import make_vision_model

pytest.importorskip("transformers", reason="Transformers is not installed")
image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

Run = Callable[..., "subprocess.CompletedProcess[str]"]
FLAGS = ("plan", "--model", "model", "--lora-rank", "4", "--json", "plan.json")
ROLES = {
    *("weights", "vision tower", "projector", "adapters", "gradients", "optimizer", "feature buffers"),
    *("activations", "logits", "workspace", "tower activations", "evaluation", "fragmentation", "context"),
}


def write_rows(folder: Path, sizes: list[tuple[int, int]]) -> None:
    """Examples with a picture of each size."""
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for number, size in enumerate(sizes):
            image.new("RGB", size, "red").save(folder / f"{number}.jpg")
            row = {"image": f"{number}.jpg", "prompt": "what is this?", "completion": "a square"}
            file.write(json.dumps(row) + "\n")


def plan(here: Run, folder: Path, *flags: str) -> dict[str, Any]:
    """The plan as JSON."""
    done = here(*FLAGS, *flags)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((folder / "plan.json").read_text())
    return found


class TestPlan:
    """Of the device."""

    @pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "smolvlm", "gemma3"])
    def test_names_each_part(self, here: Run, tmp_path: Path, family: str) -> None:
        """Without data, rows are planned full of pictures."""
        make_vision_model(tmp_path / "model", family)

        found = plan(here, tmp_path, "--train-seq-length", "128", "--batch-size", "2")

        assert set(found["roles"]) == ROLES
        assert sum(found["roles"].values()) == found["peak_bytes"]
        assert min(found["roles"].values()) >= 0
        assert found["pictures"]["largest_tokens"] <= 128
        assert found["host"]["peak_bytes"] == sum(found["host"]["roles"].values())

    def test_larger_pictures_take_more(self, here: Run, tmp_path: Path) -> None:
        """The largest counts; its patches and tokens are printed, and the histogram that a run prints."""
        make_vision_model(tmp_path / "model", "qwen2_5_vl")
        flags = ("--train-seq-length", "128", "--data", "rows.jsonl")
        write_rows(tmp_path, [(56, 56)] * 3)
        small = plan(here, tmp_path, *flags)
        write_rows(tmp_path, [(56, 56), (56, 56), (112, 112)])

        done = here(*FLAGS, *flags)

        large = json.loads((tmp_path / "plan.json").read_text())
        assert "the largest has 64 patches, 16 tokens; the median 16 patches, 4 tokens; 3 were read" in done.stdout
        assert "tokens of 3 examples, and how many have so many" in done.stdout
        assert large["roles"]["tower activations"] > small["roles"]["tower activations"]
        assert large["roles"]["activations"] == small["roles"]["activations"]

    def test_adapters_of_the_tower_are_planned(self, here: Run, tmp_path: Path) -> None:
        """Then all features have gradients, and there is more to keep."""
        make_vision_model(tmp_path / "model", "qwen3_vl")
        flags = ("--train-seq-length", "64")
        frozen = plan(here, tmp_path, *flags)

        learned = plan(here, tmp_path, *flags, "--adapt-vision", "yes", "--adapt-projector", "yes")

        assert learned["roles"]["adapters"] > frozen["roles"]["adapters"]
        assert learned["roles"]["activations"] > frozen["roles"]["activations"]
        assert "everything eagerly" in learned["why"]

    def test_what_does_not_fit_ends_with_3(self, here: Run, tmp_path: Path) -> None:
        """And says what takes less."""
        make_vision_model(tmp_path / "model", "smolvlm")

        done = here(*FLAGS, "--train-seq-length", "128", "--max-memory", "500MB")

        assert done.returncode == 3
        assert "a smaller --batch-size or --max-pixels takes less too" in done.stderr

    @pytest.mark.parametrize(
        ("flag", "name"), [("--max-batch", "batch_size"), ("--max-context", "train_seq_length")]
    )
    def test_the_largest_that_fits_is_found(self, here: Run, tmp_path: Path, flag: str, name: str) -> None:
        """The plan is within the budget."""
        make_vision_model(tmp_path / "model", "smolvlm")

        found = plan(here, tmp_path, "--train-seq-length", "64", "--max-memory", "1000MB", flag)

        assert found[name] > 64 if name == "train_seq_length" else found[name] > 1
        assert found["needed_bytes"] <= 1_000_000_000

    def test_a_search_needs_a_device(self, here: Run, tmp_path: Path) -> None:
        """On the CPU the host's memory is planned, for the settings as they are."""
        make_vision_model(tmp_path / "model", "smolvlm")

        done = here(*FLAGS, "--max-memory", "1GB", "--max-batch", "--device", "cpu")

        assert done.returncode == 2
        assert "--max-batch searches what fits a CUDA device, but device is cpu" in done.stderr


PEAK = """
import re, runpy, sys
sys.argv[1:] = sys.argv[1:]
try:
    runpy.run_module("holdwater", run_name="__main__", alter_sys=True)
except SystemExit:
    pass
status = open("/proc/self/status").read()
print("most resident", 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_the_hosts_memory_is_as_planned(holdwater: Run, tmp_path: Path) -> None:
    """Of a run whose pictures take much of it: within 10 %, and never more than 3 % under."""
    model = make_vision_model(tmp_path / "model", "qwen2_5_vl")
    pixels = {"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 1600}
    settings = json.loads((model / "preprocessor_config.json").read_text()) | {"size": pixels}
    (model / "preprocessor_config.json").write_text(json.dumps(settings))
    write_rows(tmp_path, [(840 + 28 * (number % 10), 896) for number in range(24)])
    flags = (
        *("--model", "model", "--data", "rows.jsonl", "--device", "cpu", "--threads", "1", "--lora-rank", "4"),
        *("--train-seq-length", "1300", "--batch-size", "2"),
    )

    planned = holdwater("plan", *flags, "--json", "plan.json")
    done = subprocess.run(
        [sys.executable, "-c", PEAK, "train", *flags, "--no-supervise", "--max-memory", "6GB", "--steps", "6",
         "--eval-batches", "1", "--sample-length", "1", "--out", "run"],
        cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip

    assert planned.returncode == 0, planned.stderr
    assert "most resident" in done.stdout, done.stderr
    measured = int(done.stdout.rsplit("most resident", 1)[1])
    error = json.loads((tmp_path / "plan.json").read_text())["peak_bytes"] / measured - 1
    assert -0.03 <= error <= 0.10, f"{error:+.1%} of {measured}"
