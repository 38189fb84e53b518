"""The metrics that TRL's trainers collect in their loss function, counted once however often a step is repeated.

`SFTTrainer` appends entropy and token accuracy for each batch, as means over its target tokens, and adds up
tokens. What a failed attempt has appended is taken away; what the parts of one batch have appended becomes one
mean over all of its tokens, as for the whole.
"""

from typing import Any

Counts = tuple[dict[str, dict[str, list[Any]]], int]


class MetricCounts:
    """The metrics of one trainer; nothing where a trainer keeps none."""

    def __init__(self, trainer: Any) -> None:  # noqa: ANN401 - of Transformers or TRL
        self._trainer = trainer
        self.weights: list[float] = []
        """Target tokens of the parts of this attempt."""
        self._before: Counts = ({}, 0)

    def take(self) -> Counts:
        """Copy them."""
        kept: Any = getattr(self._trainer, "_metrics", None)
        self.weights = []
        copied = {
            mode: {name: list(values) for name, values in metrics.items()}
            for mode, metrics in (kept.items() if isinstance(kept, dict) else ())
            if isinstance(metrics, dict)
        }
        self._before = (copied, getattr(self._trainer, "_total_train_tokens", 0))
        return self._before

    def put(self, state: Counts) -> None:
        """Restore them."""
        self.weights = []
        copied, tokens = state
        for mode, metrics in copied.items():
            now = self._trainer._metrics[mode]  # noqa: SLF001 - it has no public name
            for name in list(now):
                if name not in metrics:
                    del now[name]
            for name, values in metrics.items():
                now[name] = list(values)
        if hasattr(self._trainer, "_total_train_tokens"):
            self._trainer._total_train_tokens = tokens  # noqa: SLF001 - as above

    def join(self) -> None:
        """Make one entry of those that the parts of a batch have appended."""
        weights, whole = self.weights, sum(self.weights)
        copied, _ = self._before
        for mode, metrics in copied.items() if len(weights) > 1 and whole else ():
            now = self._trainer._metrics[mode]  # noqa: SLF001 - as above
            for name, values in now.items():
                begin = len(metrics.get(name, ()))
                new = values[begin:]
                if len(new) == len(weights):
                    counted = [one * weight for one, weight in zip(new, weights, strict=True) if weight]
                    values[begin:] = [sum(counted) / whole]
