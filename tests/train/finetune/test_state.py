"""What a run of fine-tuning is made of, as `holdwater train` makes it."""

import json
import re
from pathlib import Path
from typing import Any, ClassVar

import pytest

from holdwater.config import gather
from holdwater.errors import CheckpointError, ConfigError, DataError, RunFolderError
from holdwater.store.checkpoints import Checkpoint, CheckpointFolder
from holdwater.train.checkpoint_state import compare
from holdwater.train.finetune.identity import mixed, name_of
from holdwater.train.finetune.state import TuneState, new_tuning
from holdwater.train.finetune.step.eager import EagerBackend
from holdwater.train.finetune.step.fused import FusedBackend
from holdwater.train.finetune.weight_server.client import WeightClient
from holdwater.train.settings import train_settings
from tests.small_models import make_model


def made(
    folder: Path, *, family: str = "Llama", rows: list[dict[str, str]] | None = None, **flags: Any
) -> TuneState:
    """A state from flags."""
    make_model(folder / "model", family)
    rows = rows or [{"text": f"{number} holds water"} for number in range(40)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"model": str(folder / "model"), "data": str(folder / "rows.jsonl"), "device": "cpu", **flags}
    settings = train_settings(gather(flags=given, environment={}), folder / "run")
    assert settings.tuning is not None
    return new_tuning(settings, settings.tuning)


class Elsewhere(WeightClient):
    """A weight server's memory, as far as a state can tell."""

    keeps, forgotten = True, False

    def forget(self) -> None:
        """Note it."""
        self.forgotten = True


class TestNewTuning:
    """Made from settings."""

    @pytest.mark.parametrize("quantize", [None, "8"])
    def test_a_micro_batch_is_as_large_as_was_asked_for(self, tmp_path: Path, quantize: str | None) -> None:
        """On both ways of taking steps."""
        state = made(tmp_path, batch_size=4, train_seq_length=16, quantize=quantize)

        assert state.micro_batch == 4
        assert isinstance(state.backend, EagerBackend if quantize is None else FusedBackend)

    @pytest.mark.parametrize("quantize", [None, "8"])
    def test_what_is_trained_rests_with_a_keeper_only_where_it_lies_there(
        self, tmp_path: Path, quantize: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An eager model has its weights in its own process."""
        monkeypatch.setattr("holdwater.train.finetune.state.open_weight_client", lambda *_: Elsewhere())

        state = made(tmp_path, train_seq_length=16, quantize=quantize)

        assert state.weight_client.keeps == (quantize is not None)
        assert state.park(CheckpointFolder(tmp_path / "in_memory")) == (quantize is not None)

    def test_weights_of_a_process_that_left_no_checkpoint_are_not_gone_on_with(self, tmp_path: Path) -> None:
        """They are forgotten, and this process ends."""
        state = made(tmp_path, train_seq_length=16)
        state.begin_anew()
        state.weight_client = Elsewhere()
        state.weight_client.facts = {"name": "one"}

        with pytest.raises(CheckpointError, match="no whole checkpoint: they are loaded anew"):
            state.begin_anew()
        assert state.weight_client.forgotten

    def test_generated_text_begins_behind_the_prompt(self, tmp_path: Path) -> None:
        """And an arrow says where."""
        state = made(tmp_path, train_seq_length=32, rows=[{"prompt": "water", "completion": " holds"}] * 20)
        tokenizer = state.loaded.tokenizer

        begin, written = state.sample(3).split(" → ")

        assert begin == "water"
        assert len(tokenizer(written)["input_ids"]) > 0

    def test_an_example_that_cannot_be_read_is_an_error_of_its_own_step(self, tmp_path: Path) -> None:
        """Not of the one before, which looks ahead."""
        state = made(tmp_path, batch_size=1, train_seq_length=8)
        state.batches.draw("cpu")
        place = state.batches.state()
        (tmp_path / "rows.jsonl").write_text("no JSON" + " " * 2000)

        state.batches.look_ahead()

        assert state.batches.state() == place
        with pytest.raises(DataError, match="it is no JSON"):
            state.batches.draw("cpu")

    @pytest.mark.parametrize(("family", "words"), [("GPT2", "was made for 64 positions; write"), ("Llama", "")])
    def test_rows_longer_than_a_model_has_positions_are_refused(
        self, tmp_path: Path, family: str, words: str
    ) -> None:
        """Where each was learned; others may go on."""
        if words:
            with pytest.raises(ConfigError, match=words):
                made(tmp_path, train_seq_length=65, family=family)
        else:
            assert made(tmp_path, train_seq_length=65, family=family).settings.train_seq_length == 65

    def test_epochs_are_those_of_what_was_used(self, tmp_path: Path) -> None:
        """Not of what was drawn ahead."""
        state = made(tmp_path, batch_size=2, train_seq_length=16)
        state.batches.draw("cpu")
        before = state.epochs
        state.batches.look_ahead()

        assert state.epochs == before > 0

    def test_says_what_padding_wastes(self, tmp_path: Path) -> None:
        """Of what was used, and which ends were cut off."""
        state = made(tmp_path, batch_size=2, train_seq_length=4)
        assert state.remarks == ""
        state.batches.draw("cpu")
        told = state.remarks
        state.batches.look_ahead()

        assert "of the places for tokens were empty, 2 examples were cut at 4 tokens" in told
        assert state.remarks == told

    def test_another_model_has_another_name(self, tmp_path: Path) -> None:
        """Even where it shares the embeddings."""
        state = made(tmp_path, train_seq_length=16)
        other = made(tmp_path, train_seq_length=16)
        assert state.identity == other.identity

        before = name_of(state.loaded.model)
        for name, weight in state.loaded.model.named_parameters():
            if "q_proj.base" in name:
                weight.data.add_(0.01)
        assert name_of(state.loaded.model) != before


def test_seeds_are_all_different_and_fit() -> None:
    """Whatever is mixed."""
    seeds = {mixed(seed, step, part) for seed in (0, 2**63 - 1) for step in range(50) for part in range(50)}

    assert len(seeds) == 5000
    assert max(seeds) < 2**62


def test_says_in_words_what_has_changed_since_a_checkpoint(tmp_path: Path) -> None:
    """Sums tell nobody anything."""
    checkpoint = Checkpoint(tmp_path, 3, {"identity": {"examples": "12-ab", "seed": 1}})

    with pytest.raises(
        RunFolderError, match=r"other examples: the file of --data has changed since.*another --out"
    ):
        compare({"examples": "13-cd", "seed": 1}, checkpoint)
    with pytest.raises(RunFolderError, match="seed = 1, but this run has 2"):
        compare({"examples": "12-ab", "seed": 2}, checkpoint)


class TestSelectiveLoss:
    """Settings that older checkpoints do not have."""

    ROWS: ClassVar = [{"prompt": "a", "completion": f'{{"water": [{number}, null]}}'} for number in range(40)]

    def test_says_how_much_of_the_answers_is_structure(self, tmp_path: Path) -> None:
        """From the epoch on that leaves it out."""
        state = made(tmp_path, rows=self.ROWS, train_seq_length=32, selective_loss="json")
        later = made(tmp_path, rows=self.ROWS, train_seq_length=32, selective_loss="json", selective_loss_from=1)
        state.batches.draw("cpu")
        later.batches.draw("cpu")

        assert re.search(r"; \d+\.\d% of the answers' tokens were structure and left out", state.remarks)
        assert "structure" not in later.remarks

    def test_decides_what_a_checkpoint_can_be_resumed_with(self, tmp_path: Path) -> None:
        """One of before there was a choice learned answers whole."""
        plain = made(tmp_path, train_seq_length=16).identity
        selective = made(tmp_path, train_seq_length=16, selective_loss="json").identity
        old, new = (Checkpoint(tmp_path, 3, {"identity": identity}) for identity in (plain, selective))

        assert not [name for name in plain if name.startswith("selective")]
        compare(plain, old)
        compare(selective, new)
        with pytest.raises(RunFolderError, match="trained with selective_loss = none, but this run has json"):
            compare(selective, old)
        with pytest.raises(RunFolderError, match="trained with selective_loss = json, but this run has none"):
            compare(plain, new)

    @pytest.mark.parametrize("flag", [{"selective_loss_keys": "leave-out"}, {"selective_loss_from": 1}])
    def test_what_would_have_no_effect_is_refused(self, tmp_path: Path, flag: dict[str, Any]) -> None:
        """Where answers are learned whole."""
        with pytest.raises(ConfigError, match="but selective_loss is none; set that to json"):
            made(tmp_path, train_seq_length=16, **flag)
