"""A mixin for Transformers and TRL trainers whose steps recover from out-of-memory.

    class MyTrainer(RecoveringTraining, SFTTrainer): ...

When memory runs out in the forward or backward pass of a micro-batch, gradients, random states and buffers are
restored, unused memory is released, and the same samples are propagated again: first unchanged, then in smaller
parts with the same weight in the mean. `holdwater.frameworks.transformers.trainer` adds evaluations and the
optimizer's step; in checkpoints, and where several processes train together, nothing is repeated: there a
supervisor restarts the run from its newest checkpoint.
"""

from typing import Any

import torch
from torch import Tensor, nn

from holdwater.errors import HoldwaterError
from holdwater.frameworks.transformers.batch_parts import first_label, target_tokens, why_whole
from holdwater.frameworks.transformers.metric_counts import MetricCounts
from holdwater.oom.recovering_step import OneSampleTooLarge, RecoveringStep, StepFunctions
from holdwater.oom.torch_step import ModuleBuffers, cut, rows_of, why_inexact
from holdwater.random_states import RandomStates


class Gradients:
    """The gradients of earlier micro-batches; copied only if there were some."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._copies: list[tuple[Tensor, Tensor | None]] = []

    def remember(self) -> None:
        """Copy them."""
        self._copies = [
            (weight, None if weight.grad is None else weight.grad.detach().clone())
            for weight in self._model.parameters()
            if weight.requires_grad
        ]

    def put_back(self) -> None:
        """Restore the copied gradients."""
        for weight, gradient in self._copies:
            weight.grad = None if gradient is None else gradient.clone()

    def forget(self) -> None:
        """Free the copies."""
        self._copies = []


class CannotBeCut(HoldwaterError):  # noqa: N818 - the name says what it is
    """A batch did not fit, and must not be propagated in parts; the step was not taken."""


class RecoveringTraining:
    """A mixin; place it before `Trainer` in the bases of your class."""

    _recovering: RecoveringStep[Any] | None = None
    _recovers: nn.Module | None = None
    """The model whose steps it recovers."""
    _whole = ""
    """Why the newest micro-batch must not be propagated in parts; empty if it may."""
    _share = 1.0
    _first_label = 1
    """The first label that counts: a causal model predicts from the second token on, an encoder-decoder all."""
    _items: Any = None

    @property
    def recovered(self) -> list[str]:
        """Messages on recoveries within training steps; the newest last."""
        return [] if self._recovering is None else self._recovering.recovered

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Any:  # noqa: ANN401
        """Propagate one micro-batch, in as few parts as memory allows.

        Args:
            model: The model that is trained.
            inputs: The micro-batch, as for `Trainer.training_step`.
            num_items_in_batch: Target tokens of the whole optimizer step; None if they are not counted.

        Returns:
            Its loss, as `Trainer.training_step` returns it. Shape ().

        Raises:
            OneSampleTooLarge: Not even one sample fits.
            CannotBeCut: The micro-batch does not fit, and its parts would not add up to it.
        """
        if trains_with_others():
            return super().training_step(model, inputs, num_items_in_batch)  # type: ignore[misc] # the trainer's
        self._whole = why_whole(self, inputs)
        rows = 1 if self._whole else rows_of(inputs)
        if self._recovering is None or self._recovers is not model:
            self._recovering, self._recovers = self._prepare(model, rows), model
        self._recovering.expect(rows)
        self._items = num_items_in_batch
        self._gradients.remember()
        try:
            loss = self._recovering.take([inputs])
            self._counts.join()
        except OneSampleTooLarge as error:
            if not self._whole:
                raise
            raise CannotBeCut(
                f"a batch did not fit into memory, and it cannot be propagated in parts, since {self._whole}; "
                "set a smaller per_device_train_batch_size and a larger gradient_accumulation_steps"
            ) from error
        finally:
            self._gradients.forget()
        return loss

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the trainer's own
        """The trainer's own loss, times the share of the part that is propagated."""
        found: Any = super().compute_loss(*args, **kwargs)  # type: ignore[misc] # the trainer's
        if self._share == 1.0:
            return found
        return (found[0] * self._share, *found[1:]) if isinstance(found, tuple) else found * self._share

    def _prepare(self, model: nn.Module, rows: int) -> RecoveringStep[Any]:
        """The recovering step of this trainer's micro-batches."""
        self._gradients, self._counts = Gradients(model), MetricCounts(self)
        self._first_label = first_label(self, model)
        functions: StepFunctions[Any] = StepFunctions(
            propagate=lambda part, share: self._propagate(model, part, share),
            rows=lambda batch: 1 if self._whole else rows_of(batch),
            cut=cut,
            weigh=self._weigh,
            clear=self._gradients.put_back,
            update=lambda: None,
            weights=tuple,
            kept=[RandomStates(), ModuleBuffers(model), self._counts],
            inexact=why_inexact(model),
        )
        return RecoveringStep(functions, micro_batch=rows)

    def _propagate(self, model: nn.Module, part: Any, share: float) -> Any:  # noqa: ANN401
        """Let the trainer propagate a part; return its loss as if it were the whole."""
        self._share = 1.0 if self._counts_items() else share
        self._counts.weights.append(target_tokens(part, self._first_label))
        try:
            loss: Any = super().training_step(model, part, self._items)  # type: ignore[misc] # the trainer's
        finally:
            self._share = 1.0
        return loss / share

    def _counts_items(self) -> bool:
        """Whether the loss is a sum over tokens already, divided by those of the whole step."""
        trainer: Any = self
        own = getattr(trainer, "compute_loss_func", None) is not None
        scaled = bool(getattr(trainer, "loss_is_scaled_for_ga", False))
        accepts = bool(getattr(trainer, "model_accepts_loss_kwargs", False))
        return self._items is not None and (own or scaled or accepts)

    def _weigh(self, part: Any) -> float:  # noqa: ANN401 - a mapping of tensors
        """A part's weight in the mean: its target tokens, or its samples."""
        return float(rows_of(part)) if self._counts_items() else target_tokens(part, self._first_label)


def trains_with_others() -> bool:
    """Whether other processes train with this one: if it repeated its step, they would wait for it, or go on."""
    return (
        torch.distributed.is_available()
        and torch.distributed.is_initialized()
        and torch.distributed.get_world_size() > 1
    )
