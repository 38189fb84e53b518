"""Compiled optimizer steps of MLX models, each of which is evaluated whole or leaves everything as it was.

A micro-batch waits until the next one comes, or until the update: the last one of a step and the update are one
compiled function. MLX compiles it once for each shape of the rows.
"""

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.nn.utils import value_and_grad
from mlx.optimizers import AdamW
from mlx.utils import tree_map, tree_unflatten

from holdwater.train.finetune.mlx.batches import ExampleRows
from holdwater.train.finetune.mlx.loss import Head, loss_sum
from holdwater.train.finetune.mlx.trees import flat, leaves

BETAS, EPSILON = (0.9, 0.95), 1e-8
"""Of AdamW, as with PyTorch."""


Arrays = list[mx.array]
"""Tokens of some rows; places, targets and weights of those that are learned."""


class MlxStep:
    """Takes the optimizer steps of a model."""

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - a model of mlx_lm
        head: Head | None,
        *,
        weight_decay: float,
        largest_norm: float,
        skips: bool,
    ) -> None:
        """Allocate the optimizer's state.

        Args:
            model: Its trainable parameters are trained.
            head: Of the model, for a loss by chunks; None makes all logits at once.
            weight_decay: Of AdamW.
            largest_norm: Gradients with a larger norm are scaled down to this one.
            skips: Whether a step with a loss or gradients that are not finite changes nothing.
        """
        self._model, self._head, self._largest_norm, self._skips = model, head, largest_norm, skips
        self.optimizer = AdamW(
            learning_rate=0.0, betas=list(BETAS), eps=EPSILON, weight_decay=weight_decay, bias_correction=True
        )
        self.optimizer.init(model.trainable_parameters())
        self._waiting: tuple[ExampleRows, float] | None = None
        self._before: list[Any] | None = None
        self._loss = 0.0
        self._state = [model.state, self.optimizer.state, mx.random.state]
        model.train()
        mx.eval(self._state)
        self._places = [(place, name) for place, name, _ in leaves(self._state[:2])]
        self._add = mx.compile(self._gradients, inputs=self._state, outputs=self._state)
        self._finish = mx.compile(self._update, inputs=self._state, outputs=self._state)
        self._measure = mx.compile(self._evaluation, inputs=[model.state])

    def clear(self) -> None:
        """Begin a step."""
        self._waiting = self._before = None

    def propagate(self, rows: ExampleRows, share: float) -> None:
        """Add the gradient of a micro-batch's mean loss, times a share, to that of the step.

        Args:
            rows: With at least one target.
            share: What their mean loss counts in that of the step.
        """
        if self._waiting is not None:
            self._before = self._whole(self._add, *self._waiting)
        self._waiting = rows, share

    def update(self, rate: float) -> None:
        """Propagate the micro-batch that waits, and change the weights; without any, nothing changes.

        Args:
            rate: The learning rate of this step.
        """
        self._loss = 0.0
        if self._waiting is None:
            return
        self.optimizer.learning_rate = rate
        loss: Any = self._whole(self._finish, *self._waiting).item()
        self._loss = float(loss)
        self.clear()

    def loss(self) -> float:
        """The mean loss of the last step, in nats."""
        return self._loss

    def evaluate(self, rows: ExampleRows) -> float:
        """The weighted sum of cross-entropies over some rows, without changing anything.

        Args:
            rows: With or without targets.
        """
        self._model.eval()
        try:
            loss: Any = self._measure(_arrays(rows)).item()
            return float(loss)
        finally:
            self._model.train()

    def put_weights(self, arrays: Mapping[str, mx.array]) -> None:
        """Restore the trained weights.

        Args:
            arrays: All of them, by name.
        """
        self._model.update(tree_unflatten(list(arrays.items())))

    def put_optimizer(self, arrays: Mapping[str, mx.array]) -> None:
        """Restore the state of the optimizer, in the dictionaries that compiled functions know.

        Args:
            arrays: All of it, by name.
        """
        state = self.optimizer.state
        for name, (place, key, _) in zip(flat(state), list(leaves(state)), strict=True):
            place[key] = arrays[name]

    def _whole(self, function: Any, rows: ExampleRows, share: float) -> Any:  # noqa: ANN401 - a compiled function
        """Call a compiled function and evaluate all that it changes; where that fails, nothing has changed."""
        kept, key = [place[name] for place, name in self._places], random_key()
        scale = mx.array(share / rows.weight, mx.float32)
        try:
            made = function(_arrays(rows), scale, self._before)
            mx.eval(self._state, made)
        except BaseException:
            for (place, name), array in zip(self._places, kept, strict=True):
                place[name] = array
            set_random_key(key)
            raise
        return made

    def _gradients(self, rows: Arrays, scale: mx.array, before: list[Any] | None) -> list[Any]:
        """The loss and the gradients of some rows, added to those of the step so far."""
        tokens, places, targets, weights = rows

        def scaled() -> mx.array:
            """The part of the rows in the mean loss of the step."""
            return loss_sum(self._model, self._head, tokens, (places, targets, weights * scale), learns=True)

        loss, gradients = value_and_grad(self._model, scaled)()
        if before is None:
            return [loss, gradients]
        return [loss + before[0], tree_map(mx.add, gradients, before[1])]

    def _update(self, rows: Arrays, scale: mx.array, before: list[Any] | None) -> mx.array:
        """Take the whole of a step; return its mean loss."""
        loss: mx.array
        loss, gradients = self._gradients(rows, scale, before)
        squares = [one.astype(mx.float32).square().sum() for one in flat(gradients).values()]
        norm = mx.sqrt(mx.stack(squares).sum())
        too_large = mx.maximum(norm / self._largest_norm, 1.0)
        gradients = tree_map(lambda one: one / too_large, gradients)
        old = list(leaves([self._model.trainable_parameters(), self.optimizer.state])) if self._skips else []
        self.optimizer.update(self._model, gradients)
        if self._skips:
            self._choose(mx.isfinite(loss + norm), old)
        return loss

    def _choose(self, good: mx.array, old: list[tuple[Any, Any, mx.array]]) -> None:
        """Keep what an update has made if it is good, else what was there before."""
        trained = self._model.trainable_parameters()
        for (place, name, new), (_, _, before) in zip(
            list(leaves([trained, self.optimizer.state])), old, strict=True
        ):
            place[name] = mx.where(good, new, before)
        self._model.update(trained)

    def _evaluation(self, rows: Arrays) -> mx.array:
        """The weighted sum of cross-entropies."""
        tokens, *learned = rows
        return loss_sum(self._model, self._head, tokens, learned, learns=False)


class MlxRandomState:
    """MLX's random state, for steps that are repeated."""

    def take(self) -> mx.array:
        """Keep it."""
        return random_key()

    def put(self, state: mx.array) -> None:
        """Restore it."""
        set_random_key(state)


def random_key() -> mx.array:
    """The key that all random numbers follow from: two numbers of 32 bits."""
    state: Any = mx.random.state
    key: mx.array = state[0]
    return key


def set_random_key(key: mx.array) -> None:
    """Set the key that all random numbers follow from; `mx.random.seed` takes its 64 bits as they are.

    Args:
        key: As `random_key` returned it.
    """
    high, low = (int(number) for number in np.array(key))
    mx.random.seed(high << 32 | low)


def _arrays(rows: ExampleRows) -> Arrays:
    """Rows in MLX's memory."""
    return [mx.array(rows.tokens), *map(mx.array, rows.learned())]
