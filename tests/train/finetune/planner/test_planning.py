"""The rows of the hardware profiles against the plan: each fits the memory that it is for."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdwater.budget import Budget, MachineMemory, Terms
from holdwater.config import load_profile
from holdwater.config.profile import NAMES
from holdwater.errors import ConfigError
from holdwater.train.finetune.planner import plan as plans
from holdwater.train.finetune.planner.fused import SERVER_CONTEXT
from holdwater.train.finetune.planner.plan import FILLED, PLAN, choose_settings, planned_of, room_for_steps, settle
from holdwater.units import Bytes

transformers = pytest.importorskip("transformers", reason="Transformers is not installed")
SHAPES: dict[str, tuple[str, dict[str, int]]] = {
    "1b": (
        "Llama",
        {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "vocab_size": 128_256},
    ),
    "3b": (
        "Llama",
        {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "vocab_size": 128_256},
    ),
    "8b": (
        "Llama",
        {"hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32, "vocab_size": 128_256},
    ),
    "14b": (
        "Qwen2",
        {"hidden_size": 5120, "intermediate_size": 13_824, "num_hidden_layers": 48, "vocab_size": 152_064},
    ),
    "32b": (
        "Qwen2",
        {"hidden_size": 5120, "intermediate_size": 27_648, "num_hidden_layers": 64, "vocab_size": 152_064},
    ),
    "70b": (
        "Llama",
        {"hidden_size": 8192, "intermediate_size": 28_672, "num_hidden_layers": 80, "vocab_size": 128_256},
    ),
}
"""Llama 3.1 and 3.2, Qwen 2.5."""
MACHINE = MachineMemory(total=Bytes(10**11), available=Bytes(10**11), device_size=Bytes(8 * 10**10))
ROWS = [(name, size) for name in NAMES for size in load_profile(name).models]


class Given:
    """Settings of a run, as far as a plan needs them."""

    def __init__(self, folder: Path, size: str, row: dict[str, Any]) -> None:
        family, sizes = SHAPES[size]
        heads = sizes["hidden_size"] // (64 if size == "1b" else 128)
        tied = {"tie_word_embeddings": size in {"1b", "3b"}}
        config = getattr(transformers, f"{family}Config")(
            num_attention_heads=heads, num_key_value_heads=8, **sizes, **tied
        )
        config.save_pretrained(folder)
        self.model, self.quantize = str(folder), row.get("quantize")
        self.lora_rank, self.lora_layers = row["lora_rank"], row["lora_layers"]
        self.lora_alpha, self.lora_targets, self.lora_dropout = None, None, 0.0
        self.train_seq_length, self.batch_size = row["train_seq_length"], row["batch_size"]


@pytest.mark.parametrize(("name", "size"), ROWS)
def test_each_row_of_a_profile_fits(tmp_path: Path, name: str, size: str) -> None:
    """By the plan, with layers computed again or smaller micro-batches where that is needed."""
    profile = load_profile(name)
    given: Any = Given(tmp_path, size, profile.models[size])

    choice = choose_settings(
        planned_of(given, given), rows=given.batch_size, limit=Bytes(int(profile.memory * FILLED))
    )

    assert choice.peak.needed <= profile.memory * FILLED


class TestSettle:
    """How the steps of a run are taken, in all its processes."""

    @pytest.fixture
    def given(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        """Settings of a run on a device that is not there, and what the machine can spare."""
        row = {"lora_rank": 8, "lora_layers": None, "batch_size": 8, "train_seq_length": 512}
        given: Any = Given(tmp_path / "model", "1b", row)
        given.device, given.out, given.max_memory = "cuda", tmp_path, None
        given.identity = lambda: {"batch_size": given.batch_size}
        given.spare = 60 * 10**9
        monkeypatch.setattr(plans, "read_machine", lambda **_: MACHINE)
        monkeypatch.setattr(
            plans, "find_budget", lambda _: Budget(Bytes(given.spare), "found", "found, for a test")
        )
        return given

    def test_a_later_process_takes_the_steps_of_the_first(self, given: Any) -> None:
        """Whatever the machine can spare then: other micro-batches would be other sums."""
        first, choice = settle(given, given)
        given.spare = 7 * 10**9

        assert choice is not None
        assert settle(given, given) == (first, None)

    def test_other_settings_are_planned_anew(self, given: Any) -> None:
        """Where a run goes on with another budget, say; and where the file is damaged."""
        first, _ = settle(given, given)
        given.max_memory = Bytes(7 * 10**9)
        again, choice = settle(given, given)
        (given.out / PLAN).write_text("{")
        given.max_memory = None

        assert choice is not None
        assert again != first
        assert settle(given, given)[0] == first

    def test_says_where_a_budget_comes_from_that_nobody_gave(self, given: Any) -> None:
        """If nothing fits into it."""
        given.spare = 10**9

        with pytest.raises(
            ConfigError, match=r"no max_memory is given, so there is a budget 1.00 GB: found, for a te"
        ):
            settle(given, given)


class TestRoom:
    """What steps may take, by the definition that the guard keeps."""

    def test_what_was_given_is_the_devices(self) -> None:
        """All of it; a weight server has a context of its own, in `plan` as in `train`."""
        alone, _ = room_for_steps(Bytes(8_200_000_000), with_weight_server=False)
        kept, _ = room_for_steps(Bytes(8_200_000_000), with_weight_server=True)

        assert (alone, kept) == (8_200_000_000, 8_200_000_000 - SERVER_CONTEXT)

    def test_a_found_one_follows_from_the_device_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """80 % of 80 GB, though the host has only 20 GB to spare; less may be found once weights are loaded."""
        small = replace(MACHINE, available=Bytes(20 * 10**9))
        monkeypatch.setattr(plans, "read_machine", lambda **_: small)

        limit, budget = room_for_steps(None, with_weight_server=False)

        assert budget is not None
        assert (budget.limit, limit) == (64 * 10**9, int(64 * 10**9 * FILLED))
        assert Terms(machine=small).budgets().main == budget
