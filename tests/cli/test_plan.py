"""`holdwater plan` as users call it: without a GPU, on the configuration of a model.

Only one test starts the installed command, which imports Transformers first; the others call what it calls.
"""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.small_models import make_model

Run = Callable[..., "subprocess.CompletedProcess[str]"]
FLAGS = ("plan", "--model", "model", "--train-seq-length", "2048", "--batch-size", "8", "--lora-rank", "8")


def plan(holdwater: Run, folder: Path, *flags: str) -> dict[str, object]:
    """The plan as JSON."""
    done = holdwater(*FLAGS, "--json", "plan.json", *flags)
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads((folder / "plan.json").read_text())
    return found


class TestPlan:
    """What it predicts and chooses."""

    def test_says_what_memory_is_for(self, holdwater: Run, tmp_path: Path) -> None:
        """Roles, their sum, and the settings, also as JSON."""
        make_model(tmp_path / "model", "Llama", heads=1)

        done = holdwater(*FLAGS)
        found = plan(holdwater, tmp_path)

        assert done.returncode == 0, done.stderr
        roles = found["roles"]
        assert isinstance(roles, dict)
        assert sum(roles.values()) == found["peak_bytes"]
        assert all(
            role in done.stdout for role in ("weights", "optimizer", "activations", "context of the device")
        )
        assert (found["micro_batch"], found["recomputed_layers"]) == (8, 0)
        assert "nothing computed again" in done.stdout

    def test_a_budget_is_kept_by_smaller_parts_before_more_work(self, here: Run, tmp_path: Path) -> None:
        """The fastest that fits."""
        make_model(tmp_path / "model", "Llama", heads=1)
        whole = plan(here, tmp_path)["peak_bytes"]

        found = plan(here, tmp_path, "--max-memory", f"{int(str(whole)) - 10_000_000}B")

        assert int(str(found["peak_bytes"])) <= int(str(whole)) - 10_000_000
        assert found["micro_batch"] == 4

    def test_few_bits_take_less(self, here: Run, tmp_path: Path) -> None:
        """And the room in which weights are made whole is counted."""
        make_model(tmp_path / "model", "Qwen2", heads=1)
        whole, few = (plan(here, tmp_path, *flags)["roles"] for flags in ((), ("--quantize", "4")))

        assert isinstance(whole, dict)
        assert isinstance(few, dict)
        assert few["weights"] < whole["weights"]
        assert few["activations"] == whole["activations"]

    def test_any_model_can_be_planned(self, here: Run, tmp_path: Path) -> None:
        """By what a trace of it asks for; a budget is kept by smaller parts."""
        make_model(tmp_path / "model", "GPT2", heads=1)
        whole = plan(here, tmp_path)
        few = plan(here, tmp_path, "--quantize", "8")["roles"]
        less = plan(here, tmp_path, "--max-memory", f"{int(str(whole['peak_bytes'])) - 1_000_000}B")

        assert isinstance(whole["roles"], dict)
        assert isinstance(few, dict)
        assert sum(whole["roles"].values()) == whole["peak_bytes"]
        assert few["weights"] < whole["roles"]["weights"]
        assert whole["micro_batch"] == 8
        assert int(str(less["micro_batch"])) < 8
        assert "under autograd" in str(less["why"])

    def test_all_weights_are_planned_too(self, here: Run, tmp_path: Path) -> None:
        """In float32, with gradients as large and moments twice as large; a budget is kept by smaller parts."""
        make_model(tmp_path / "model", "Llama", heads=1)
        found = plan(here, tmp_path, "--lora-rank", "0")
        less = plan(here, tmp_path, "--lora-rank", "0", "--max-memory", f"{int(str(found['peak_bytes'])) - 1}B")
        roles = found["roles"]

        assert isinstance(roles, dict)
        assert "adapters" not in roles
        assert roles["weights"] == pytest.approx(roles["gradients"], rel=0.01)
        assert roles["optimizer"] == pytest.approx(2 * roles["gradients"], rel=0.01)
        assert sum(roles.values()) == found["peak_bytes"]
        assert int(str(less["micro_batch"])) < int(str(found["micro_batch"]))

    @pytest.mark.parametrize(
        ("family", "flags", "words"),
        [
            ("Llama", (), "max_memory is 500 MB, but the least that a step takes is"),
            ("GPT2", (), "max_memory is 500 MB, but the least that a step takes is"),
            ("Llama", (), "use --quantize 4, a smaller --lora-rank, a smaller"),
            ("GPT2", ("--quantize", "4"), "use a smaller --lora-rank, a smaller"),
            ("Llama", ("--lora-rank", "0"), "use adapters (--lora-rank 16), a smaller"),
            ("Llama", ("--max-context",), "max_memory is 500 MB, but the least"),
            ("GPT2", ("--max-batch",), "max_memory is 500 MB, but the least"),
        ],
    )
    def test_what_does_not_fit_ends_with_3(
        self, here: Run, tmp_path: Path, family: str, flags: tuple[str, ...], words: str
    ) -> None:
        """One message, and an exit code that guards a `train`."""
        make_model(tmp_path / "model", family, heads=1)

        done = here(*FLAGS, "--max-memory", "500MB", *flags)

        assert done.returncode == 3
        assert words in done.stderr

    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            (("--lora-rank", "0", "--quantize", "4"), "weights that are trained need every bit"),
            (("--model", "none"), "--model none"),
            (("--max-context",), "--max-context needs a budget; add --max-memory SIZE"),
            (("--max-batch",), "--max-batch needs a budget; add --max-memory SIZE"),
        ],
    )
    def test_mistakes_get_one_message(self, here: Run, tmp_path: Path, flags: tuple[str, ...], words: str) -> None:
        """With exit code 2."""
        make_model(tmp_path / "model", "Llama", heads=1)

        done = here(*FLAGS, *flags)

        assert done.returncode == 2
        assert words in done.stderr
        assert "Traceback" not in done.stderr

    def test_without_a_model_it_says_what_to_write(self, here: Run) -> None:
        """Nothing is guessed."""
        done = here("plan")

        assert done.returncode == 2
        assert "write --model FOLDER" in done.stderr


def number(found: dict[str, object], name: str) -> int:
    """A whole number of a plan."""
    value = found[name]
    assert isinstance(value, int)
    return value


class TestMargin:
    """What is kept free beyond the plan."""

    @pytest.mark.parametrize("family", ["Llama", "GPT2"])
    def test_is_named_apart_from_what_is_planned(self, here: Run, tmp_path: Path, family: str) -> None:
        """And a budget must hold both."""
        make_model(tmp_path / "model", family, heads=1)
        found = plan(here, tmp_path)
        needed, margin = number(found, "needed_bytes"), number(found, "margin_bytes")

        fitting = plan(here, tmp_path, "--max-memory", f"{needed}B")
        tighter = plan(here, tmp_path, "--max-memory", f"{needed - 1}B")

        assert margin > 0
        assert needed == number(found, "peak_bytes") + margin
        assert (found["left_bytes"], fitting["left_bytes"]) == (None, 0)
        assert fitting["micro_batch"] == found["micro_batch"]
        assert number(tighter, "needed_bytes") < needed


class TestLargest:
    """The inverse of a plan."""

    @pytest.mark.parametrize("family", ["Llama", "GPT2"])
    def test_batch_is_the_largest_that_fits(self, here: Run, tmp_path: Path, family: str) -> None:
        """In one piece: the same budget has no room for one row more."""
        make_model(tmp_path / "model", family, heads=1)
        length = ("--train-seq-length", "64")
        room = number(plan(here, tmp_path, *length, "--batch-size", "24"), "needed_bytes")

        found = plan(here, tmp_path, *length, "--max-batch", "--max-memory", f"{room}B")
        rows = number(found, "batch_size")
        more = plan(here, tmp_path, *length, "--batch-size", str(rows + 1), "--max-memory", f"{room}B")

        assert rows >= 24
        assert found["micro_batch"] == rows
        assert number(found, "left_bytes") >= 0
        assert number(more, "micro_batch") <= rows

    def test_context_is_the_longest_that_fits(self, here: Run, tmp_path: Path) -> None:
        """The next length that is tried does not fit."""
        make_model(tmp_path / "model", "Llama", heads=1)
        config = json.loads((tmp_path / "model/config.json").read_text()) | {"max_position_embeddings": 100_000}
        (tmp_path / "model/config.json").write_text(json.dumps(config))
        one = ("--batch-size", "1", "--max-memory", "1GB")

        found = plan(here, tmp_path, *one, "--max-context")
        length = number(found, "train_seq_length")
        too_long = here(*FLAGS, *one, "--train-seq-length", str(length + 64))

        assert 64 < length < 100_000
        assert length % 64 == 0
        assert number(found, "left_bytes") >= 0
        assert too_long.returncode == 3

    def test_context_ends_at_the_positions_of_the_model(self, here: Run, tmp_path: Path) -> None:
        """Memory for more would be of no use."""
        make_model(tmp_path / "model", "GPT2", heads=1)

        found = plan(here, tmp_path, "--max-context", "--max-memory", "40GB")

        assert found["train_seq_length"] == 64
