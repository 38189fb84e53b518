"""Evaluations of a trainer that recover from out-of-memory; training's micro-batch stays as it is.

A batch that ran out of memory is predicted again: first unchanged, then in smaller parts. Losses are joined by
the target tokens of the parts, predictions and labels by rows, so the result is that of the whole batch, to
rounding of the kernels for smaller batches. Where memory runs out between batches, since predictions are kept on
the device, the evaluation is made again and moves them to the host after each batch.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from holdwater.frameworks.transformers.batch_parts import first_label, target_tokens, why_whole
from holdwater.frameworks.transformers.metric_counts import MetricCounts
from holdwater.frameworks.transformers.oom import CannotBeCut, trains_with_others
from holdwater.oom.out_of_memory import is_out_of_memory, release
from holdwater.oom.recovering_step import OneSampleTooLarge, first_line
from holdwater.oom.torch_step import cut, rows_of
from holdwater.random_states import RandomStates
from holdwater.signal_errors import not_the_scripts

log = logging.getLogger("holdwater")

Predicted = tuple[Any, Any, Any]
"""Loss, predictions and labels."""


class RecoveringEvaluation:
    """A mixin; place it before `Trainer` in the bases of your class."""

    _evaluated_rows: int | None = None
    """Rows that fit at once in this evaluation; None as long as every batch did."""

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the trainer's own
        """Evaluate; once more if memory runs out between two batches.

        Args:
            args: As for `Trainer.evaluation_loop`.
            kwargs: The same.

        Returns:
            What the trainer returns.
        """
        self._evaluated_rows = None
        trainer: Any = self
        states, counts = RandomStates(), MetricCounts(self)
        before, counted = states.take(), counts.take()
        try:
            return super().evaluation_loop(*args, **kwargs)  # type: ignore[misc] # the trainer's
        except not_the_scripts(Exception) as error:
            ours = isinstance(error, OneSampleTooLarge | CannotBeCut)
            if ours or not is_out_of_memory(error) or trains_with_others():
                raise
            failure = first_line(error)
        states.put(before)
        counts.put(counted)
        release()
        log.warning("memory ran out between two batches of an evaluation (%s); it is made again", failure)
        steps, trainer.args.eval_accumulation_steps = trainer.args.eval_accumulation_steps, 1
        try:
            return super().evaluation_loop(*args, **kwargs)  # type: ignore[misc] # the trainer's
        finally:
            trainer.args.eval_accumulation_steps = steps

    def prediction_step(
        self,
        model: nn.Module,
        inputs: Any,  # noqa: ANN401 - a mapping of tensors
        prediction_loss_only: bool,  # noqa: FBT001 - as the trainer's own
        ignore_keys: Any = None,  # noqa: ANN401 - as the trainer's own
        **more: Any,  # noqa: ANN401 - as above
    ) -> Predicted:
        """Predict one batch, in as few parts as memory allows.

        Args:
            model: The model that is evaluated.
            inputs: The batch.
            prediction_loss_only: Whether only the loss is wanted.
            ignore_keys: Outputs that are left out.
            more: What the trainer's own takes beside these.

        Returns:
            Loss, predictions and labels, as `Trainer.prediction_step` returns them.

        Raises:
            OneSampleTooLarge: Not even one sample fits.
            CannotBeCut: The batch does not fit, and must not be predicted in parts.
        """
        own: Any = super().prediction_step  # type: ignore[misc] # the trainer's

        def predict(part: Any) -> Predicted:  # noqa: ANN401 - as above
            """As the trainer does."""
            found: Predicted = own(model, part, prediction_loss_only, ignore_keys, **more)
            return found

        if trains_with_others():
            return predict(inputs)
        whole, rows = why_whole(self, inputs), rows_of(inputs)
        at_once = rows if whole else min(self._evaluated_rows or rows, rows)
        states, counts = RandomStates(), MetricCounts(self)
        before, counted, again = states.take(), counts.take(), False
        while True:
            result = _predict(predict, inputs, at_once, first_label(self, model), counts)
            if not isinstance(result, str):
                counts.join()
                return result
            states.put(before)
            counts.put(counted)
            release()
            if not again:
                log.warning("memory ran out in an evaluation (%s); the batch is predicted again", result)
            at_once, again = self._smaller(at_once, whole, result) if again else at_once, True

    def _smaller(self, at_once: int, whole: str, failure: str) -> int:
        """The rows to try after a batch did not fit twice.

        Raises:
            OneSampleTooLarge: It was one.
            CannotBeCut: Its parts would not give the same result.
        """
        if whole:
            raise CannotBeCut(
                f"a batch of an evaluation did not fit into memory, and cannot be predicted in parts, since "
                f"{whole}; set a smaller per_device_eval_batch_size"
            )
        if at_once == 1:
            raise OneSampleTooLarge(f"not even one sample of an evaluation fits into memory ({failure})")
        self._evaluated_rows = max(at_once // 2, 1)
        log.warning(
            "memory ran out in an evaluation (%s); its batches are predicted %d rows at once, and training's "
            "micro-batch stays as it is", failure, self._evaluated_rows,
        )  # fmt: skip
        return self._evaluated_rows


def _predict(
    predict: Callable[[Any], Predicted],
    inputs: Any,  # noqa: ANN401 - a mapping of tensors
    at_once: int,
    first: int,
    counts: MetricCounts,
) -> Predicted | str:
    """Predict a batch in parts of so many rows; how memory ran out, if it did."""
    rows = rows_of(inputs)
    begins = range(0, rows, at_once)
    parts = [inputs if at_once >= rows else cut(inputs, at, min(at + at_once, rows)) for at in begins]
    weights = [target_tokens(part, first) for part in parts]
    counts.weights = list(weights)
    try:
        found = [predict(part) for part in parts]
        return found[0] if len(found) == 1 else _joined(found, weights, [rows_of(part) for part in parts])
    except not_the_scripts(Exception) as error:
        if not is_out_of_memory(error):
            raise
        return first_line(error)


def _joined(found: list[Predicted], weights: list[float], rows: list[int]) -> Predicted:
    """The result of a batch from those of its parts."""
    losses, predictions, labels = zip(*found, strict=True)
    return _mean(list(losses), weights), _concatenated(list(predictions), rows), _concatenated(list(labels), rows)


def _mean(losses: list[Any], weights: list[float]) -> Any:  # noqa: ANN401 - a tensor, or None
    """The mean of losses by weight; parts without a target count for nothing."""
    if any(loss is None for loss in losses) or not sum(weights):
        return losses[0]
    counted = [loss * (weight / sum(weights)) for loss, weight in zip(losses, weights, strict=True) if weight]
    return torch.stack(counted).sum(dim=0)


def _concatenated(parts: list[Any], rows: list[int]) -> Any:  # noqa: ANN401 - tensors, however they are nested
    """The rows of all parts in order.

    Raises:
        CannotBeCut: What a part returns is not one row a sample.
    """
    first = parts[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        uneven = len({part.shape[1:] for part in parts}) > 1
        if uneven or any(not part.dim() or len(part) != count for part, count in zip(parts, rows, strict=True)):
            shapes = ", ".join(str(tuple(part.shape)) for part in parts)
            raise CannotBeCut(
                "a batch of an evaluation did not fit into memory, and cannot be predicted in parts, since the "
                f"model returns tensors of the shapes {shapes} for parts of {rows[0]} samples; set a smaller "
                "per_device_eval_batch_size"
            )
        return torch.cat(parts)
    if isinstance(first, dict):
        return type(first)({name: _concatenated([part[name] for part in parts], rows) for name in first})
    return type(first)(_concatenated(list(column), rows) for column in zip(*parts, strict=True))
