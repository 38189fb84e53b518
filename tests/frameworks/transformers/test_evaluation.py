"""An evaluation that runs out of memory gives the result of the whole batch, and changes nothing in training."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from holdwater.frameworks.transformers.evaluation import RecoveringEvaluation
from holdwater.frameworks.transformers.oom import CannotBeCut
from holdwater.oom.recovering_step import OneSampleTooLarge


class StandInTrainer:
    """Predicts and evaluates as Transformers' Trainer does; fails at some calls, or for too many rows."""

    _loss_shifts_labels = True
    texts = False
    """Whether it generates texts, each call longer ones."""

    def __init__(self, *failing: int, most_rows: int = 100, between: int = 0) -> None:
        self.failing, self.most_rows, self.calls, self.sizes = failing, most_rows, 0, list[int]()
        self.between, self.loops = between, 0
        self.args = SimpleNamespace(eval_accumulation_steps=None)
        self._metrics: dict[str, dict[str, list[float]]] = {"train": {}, "eval": {}}

    def prediction_step(self, _model: Any, inputs: dict[str, Any], loss_only: bool, _keys: Any) -> Any:
        """The mean over target tokens, and the logits."""
        self.calls += 1
        counts = (inputs["labels"][:, 1:] != -100).sum()
        loss = (inputs["x"].sum(dim=-1)[:, 1:] * (inputs["labels"][:, 1:] != -100)).sum() / counts
        self._metrics["eval"].setdefault("accuracy", []).append(float(loss))
        if self.calls in self.failing or len(inputs["x"]) > self.most_rows:
            raise MemoryError("injected")
        self.sizes.append(len(inputs["x"]))
        if self.texts:
            return loss, torch.zeros(len(inputs["x"]), self.calls), inputs["labels"]
        return loss, None if loss_only else (inputs["x"] * 2, {"a": inputs["x"]}), inputs["labels"]

    def evaluation_loop(self, *, failing: bool = True) -> list[Any]:
        """Three batches; between two of them memory may run out."""
        self.loops += 1
        found = [self.prediction_step(None, batch(), False, None) for _ in range(3)]  # noqa: FBT003
        if failing and self.loops == self.between:
            raise MemoryError("predictions are kept on the device")
        return [*found, self.args.eval_accumulation_steps]


class Trainer(RecoveringEvaluation, StandInTrainer):  # type: ignore[misc] # the stand-in takes less
    """What a user writes."""


def batch() -> dict[str, torch.Tensor]:
    """Six rows whose target tokens differ in number."""
    torch.manual_seed(1)
    labels = torch.randint(0, 11, (6, 7))
    for row in range(6):
        labels[row, row + 1 :] = -100
    return {"x": torch.randn(6, 7, 5), "labels": labels}


def predict(trainer: Trainer) -> Any:
    """One batch."""
    return trainer.prediction_step(None, batch(), False, None)  # type: ignore[arg-type] # noqa: FBT003


class TestRecoveringEvaluation:
    """The same result, from the same batch."""

    def test_one_lack_of_memory_changes_no_bit(self) -> None:
        """The batch is predicted again as it is."""
        found, wanted = predict(Trainer(1)), predict(Trainer())

        assert torch.equal(found[0], wanted[0])
        assert torch.equal(found[1][0], wanted[1][0])

    @pytest.mark.parametrize("most", [1, 2, 4])
    def test_parts_give_the_result_of_the_whole(self, most: int) -> None:
        """One row has no target, others have few: the mean is over tokens; rows come in order."""
        trainer = Trainer(most_rows=most)

        found, wanted = predict(trainer), predict(Trainer())

        assert max(trainer.sizes) <= most
        torch.testing.assert_close(found[0], wanted[0])
        for one, other in (
            (found[1][0], wanted[1][0]),
            (found[1][1]["a"], wanted[1][1]["a"]),
            (found[2], wanted[2]),
        ):
            assert torch.equal(one, other)

    def test_metrics_are_counted_once(self) -> None:
        """What failed attempts have appended is gone, and parts are one entry, by their tokens."""
        trainer, whole = Trainer(most_rows=2), Trainer()
        predict(trainer)
        predict(whole)

        assert trainer._metrics["eval"]["accuracy"] == pytest.approx(whole._metrics["eval"]["accuracy"])

    def test_the_next_evaluation_begins_with_whole_batches(self) -> None:
        """Within one, what was learnt about memory holds."""
        trainer = Trainer(1, 2)
        trainer.evaluation_loop()
        assert trainer.sizes == [3] * 6

        trainer.sizes.clear()
        trainer.evaluation_loop()

        assert trainer.sizes == [6] * 3

    def test_a_lack_between_batches_moves_predictions_to_the_host(self) -> None:
        """The evaluation is made again, and the setting is as it was."""
        trainer = Trainer(between=1)

        found = trainer.evaluation_loop()

        assert (trainer.loops, found[-1], trainer.args.eval_accumulation_steps) == (2, 1, None)
        assert len(trainer._metrics["eval"]["accuracy"]) == 3

    def test_stops_where_not_one_row_fits(self) -> None:
        """With that reason, once: it is no lack of memory that another attempt could cure."""
        trainer = Trainer(most_rows=0)

        with pytest.raises(OneSampleTooLarge, match="not even one sample of an evaluation"):
            trainer.evaluation_loop()

        assert trainer.loops == 1

    def test_refuses_parts_of_what_is_no_row_a_sample(self) -> None:
        """Patches of pictures, for example: to cut them by samples would mix pictures up."""
        trainer, inputs = Trainer(most_rows=2), batch()

        with pytest.raises(CannotBeCut, match="pixel_values has 9 rows, and the batch has 6 samples"):
            trainer.prediction_step(None, inputs | {"pixel_values": torch.zeros(9, 3)}, True, None)  # type: ignore[arg-type] # noqa: FBT003

    def test_refuses_parts_that_do_not_fit_together(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Generated texts of other lengths: filled up, they would not be those of the whole batch."""
        trainer = Trainer(most_rows=3)
        monkeypatch.setattr(StandInTrainer, "texts", True)

        with pytest.raises(CannotBeCut, match=r"shapes \(3, 3\), \(3, 4\) for parts of 3 samples"):
            predict(trainer)

    def test_leaves_other_failures_alone(self) -> None:
        """A bug is a bug."""
        with pytest.raises(KeyError, match="labels"):
            Trainer().prediction_step(None, {"x": torch.zeros(2, 3, 1)}, True, None)  # type: ignore[arg-type] # noqa: FBT003
