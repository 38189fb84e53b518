"""Trainers of Transformers and TRL that recover from out-of-memory: in a step, in the optimizer, in an evaluation.

    trainer = HoldwaterTrainer(..., callbacks=[HoldwaterCallback(max_memory="20GB")])
    trainer = HoldwaterSFTTrainer(...)              # only where TRL is installed
    class MyTrainer(HoldwaterTrainerMixin, Trainer): ...

What ran out of memory is repeated with the same samples, random states and effective batch: first unchanged (every
bit stays), then in smaller parts. It cannot be repeated where several processes train together, and where parts of
a batch do not add up to it; then the error says so. Dropout draws other numbers for parts than for the whole.
"""

from typing import TYPE_CHECKING, Any

from holdwater.frameworks.transformers.evaluation import RecoveringEvaluation
from holdwater.frameworks.transformers.oom import RecoveringTraining, trains_with_others
from holdwater.frameworks.transformers.required import from_transformers
from holdwater.oom.optimizer_step import recover_steps

if TYPE_CHECKING:
    from transformers import Trainer
else:
    Trainer = from_transformers("Trainer", "the trainer")


class HoldwaterTrainerMixin(RecoveringEvaluation, RecoveringTraining):
    """Exact recovery; place it before `Trainer`, or a trainer of TRL, in the bases of your class."""

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the trainer's own
        """The trainer's own optimizer; its step is repeated if memory runs out before it has written anything.

        Args:
            args: As for `Trainer.create_optimizer`.
            kwargs: The same.
        """
        optimizer = super().create_optimizer(*args, **kwargs)  # type: ignore[misc] # the trainer's
        return optimizer if trains_with_others() or optimizer is None else recover_steps(optimizer)


class HoldwaterTrainer(HoldwaterTrainerMixin, Trainer):  # type: ignore[misc] # its types are not read
    """Transformers' `Trainer` with recovery."""


def _sft_trainer() -> type:
    """TRL's `SFTTrainer` with recovery."""
    try:
        from trl import SFTTrainer  # noqa: PLC0415 - only where it is asked for
    except ImportError as missing:
        raise ImportError(
            "HoldwaterSFTTrainer needs TRL, which is not installed; write: pip install trl"
        ) from missing
    return type("HoldwaterSFTTrainer", (HoldwaterTrainerMixin, SFTTrainer), {
        "__doc__": "TRL's `SFTTrainer` with recovery.", "__module__": __name__,
    })  # fmt: skip


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class
    if name != "HoldwaterSFTTrainer":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return globals().setdefault(name, _sft_trainer())
