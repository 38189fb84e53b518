"""A mixin for Transformers and TRL trainers whose steps recover from out-of-memory.

    class MyTrainer(RecoveringTraining, SFTTrainer): ...

When memory runs out in the forward or backward pass of a micro-batch, gradients, random states and buffers are
restored, unused memory is released, and the same samples are propagated again: first unchanged, then in smaller
parts with the same weight in the mean. The optimizer's step, evaluations and checkpoints are not covered: there a
supervisor restarts the run from its newest checkpoint.
"""

from typing import Any

from torch import Tensor, nn

from holdwater.oom.recovering_step import RecoveringStep, StepFunctions
from holdwater.oom.torch_step import ModuleBuffers, cut, rows_of, why_inexact
from holdwater.random_states import RandomStates

IGNORED = -100
"""The label of a token that does not count in the loss, as in Transformers."""


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


class RecoveringTraining:
    """A mixin; place it before `Trainer` in the bases of your class."""

    _recovering: RecoveringStep[Any] | None = None
    _share = 1.0
    _first_label = 1
    """The first label that counts: a causal model predicts from the second token on, an encoder-decoder all."""
    _items: Any = None

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
        """
        if self._recovering is None:
            self._recovering = self._prepare(model, rows_of(inputs))
        self._items = num_items_in_batch
        self._gradients.remember()
        try:
            return self._recovering.take([inputs])
        finally:
            self._gradients.forget()

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the trainer's own
        """The trainer's own loss, times the share of the part that is propagated."""
        found: Any = super().compute_loss(*args, **kwargs)  # type: ignore[misc] # the trainer's
        if self._share == 1.0:
            return found
        return (found[0] * self._share, *found[1:]) if isinstance(found, tuple) else found * self._share

    def _prepare(self, model: nn.Module, rows: int) -> RecoveringStep[Any]:
        """The recovering step of this trainer's micro-batches."""
        self._gradients = Gradients(model)
        self._first_label = 0 if getattr(getattr(model, "config", None), "is_encoder_decoder", False) else 1
        functions: StepFunctions[Any] = StepFunctions(
            propagate=lambda part, share: self._propagate(model, part, share),
            rows=rows_of,
            cut=cut,
            weigh=self._weigh,
            clear=self._gradients.put_back,
            update=lambda: None,
            weights=tuple,
            kept=[RandomStates(), ModuleBuffers(model)],
            inexact=why_inexact(model),
        )
        return RecoveringStep(functions, micro_batch=rows)

    def _propagate(self, model: nn.Module, part: Any, share: float) -> Any:  # noqa: ANN401
        """Let the trainer propagate a part; return its loss as if it were the whole."""
        self._share = 1.0 if self._counts_items() else share
        try:
            loss: Any = super().training_step(model, part, self._items)  # type: ignore[misc] # the trainer's
        finally:
            self._share = 1.0
        return loss / share

    def _counts_items(self) -> bool:
        """Whether the loss is a sum over tokens already, divided by those of the whole step."""
        trainer: Any = self
        own = getattr(trainer, "compute_loss_func", None) is not None
        return self._items is not None and (own or bool(getattr(trainer, "model_accepts_loss_kwargs", False)))

    def _weigh(self, part: Any) -> float:  # noqa: ANN401 - a mapping of tensors
        """A part's weight in the mean: its target tokens, or its samples."""
        labels = part.get("labels") if hasattr(part, "get") else None
        if self._counts_items() or labels is None or labels.dim() < 2:
            return float(rows_of(part))
        return float((labels[:, self._first_label :] != IGNORED).sum())
