"""Checkpoints of Lightning from which a fresh process continues exactly: at the beginning of an epoch.

Lightning's checkpoint holds weights, optimizers, schedules, loops and callbacks, but neither random states nor the
place inside an epoch. At the beginning of an epoch the random states say all that is missing.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from holdwater.random_states import random_states, restore_random_states
from holdwater.resume.epoch import Position
from holdwater.resume.exactness import exactness, restore_exactness
from holdwater.resume.fingerprint import Fingerprint, Leaves
from holdwater.resume.introspection import attributes_of, is_users
from holdwater.resume.state_codec import set_state, state_of

ENDING = ".ckpt"
SET_LATER = ("_hparams", "_hparams_initial", "_hparams_name", "_trainer", "_metric_attributes")
"""Attributes of a LightningModule that it sets itself after it was made."""
SET_IN_CALLBACKS = ("log", "log_dict")
"""Attributes of a callback that the trainer sets: methods of the module."""
FIRST_HOOK = "on_train_epoch_start"
"""The hook in which checkpoints are written."""


class EpochCheckpoints:
    """Writes and finds the checkpoints of one run."""

    def __init__(self, folder: Path, *, keep: int = 3) -> None:
        """Prepare.

        Args:
            folder: Where they lie; it is made when the first one is written.
            keep: How many of them are kept.
        """
        self.folder, self._keep = folder, keep

    def newest(self) -> Path | None:
        """The newest one; None before the first. One is complete as soon as it has its name."""
        found = [path for path in self.folder.glob(f"step-*{ENDING}") if path.stem.removeprefix("step-").isdigit()]
        return max(found, key=lambda path: int(path.stem.removeprefix("step-")), default=None)

    def save(self, trainer: Any, step: int) -> Path:  # noqa: ANN401 - of Lightning
        """Let the trainer write one, aside first; a process that dies meanwhile leaves the one before.

        Args:
            trainer: Lightning's.
            step: Steps done.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{step:08d}{ENDING}"
        aside = path.with_suffix(".part")
        trainer.save_checkpoint(aside)
        if trainer.is_global_zero:
            aside.replace(path)
            self._synchronise()
            for old in sorted(self.folder.glob(f"step-*{ENDING}"))[: -self._keep]:
                old.unlink(missing_ok=True)
        return path

    def _synchronise(self) -> None:
        """Let the names in the folder reach the disk."""
        number = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


@contextmanager
def between_epochs(trainer: Any) -> Iterator[None]:  # noqa: ANN401 - of Lightning
    """Let the trainer count as if the epoch that begins had not begun, for a checkpoint in its first hook.

    A checkpoint that says *begun* makes Lightning 2.6 pass over the epoch: its count of batches is still that of
    the epoch before.

    Args:
        trainer: Lightning's.
    """
    counts = (trainer.fit_loop.epoch_progress.total, trainer.fit_loop.epoch_progress.current)
    for count in counts:
        count.ready -= 1
    try:
        yield
    finally:
        for count in counts:
            count.ready += 1


class EpochStates:
    """The random states at the beginning of an epoch, and what must not change for them to be enough."""

    def __init__(self) -> None:
        self._positions: list[Position] = []
        self._left: Mapping[str, Any] | None = None
        """Of an earlier process, until they are restored."""
        self._leaves: Leaves = {}
        self.saved_at = time.monotonic()

    def begin(self, trainer: Any, module: Any, callback: object) -> None:  # noqa: ANN401 - of Lightning
        """Record what loaders, module and callbacks hold, when training begins.

        Args:
            trainer: Lightning's.
            module: Its LightningModule.
            callback: Ours.
        """
        self._positions = [Position(loader) for loader in _loaders(trainer)]
        for position in self._positions:
            position.watch()
        self._leaves = _fingerprint(trainer, module, callback)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        own = [[state_of(one, "generator") for one in position.own] for position in self._positions]
        settings = {name: one if type(one) in {bool, int} else str(one) for name, one in exactness().items()}
        return {"random": random_states(), "generators": own, "exactness": settings}  # `weights_only` can load it

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up those of an earlier process; they are restored when its epoch begins again."""
        self._left = state

    def restore(self, trainer: Any) -> list[str]:  # noqa: ANN401 - of Lightning
        """Begin the epoch of an earlier process as it began there; nothing is done in other epochs.

        Args:
            trainer: Lightning's; its loop has begun to iterate with other random states.

        Returns:
            Remarks on settings that could not be restored.
        """
        left, self._left = self._left, None
        if left is None:
            return []
        remarks = restore_exactness(left["exactness"])
        for position, states in zip(self._positions, left["generators"], strict=False):
            for generator, state in zip(position.own, states, strict=False):
                set_state(generator, "generator", state)
        loop = trainer.fit_loop
        loop.epoch_loop.restarting = False  # else it takes this epoch for the one before, which is over
        loop._restarting = False  # noqa: SLF001 - else no schedule steps at its end where the length is in steps
        restore_random_states(left["random"])
        iter(loop._data_fetcher)  # noqa: SLF001 - as the loop itself does in later epochs
        return remarks

    def why_not(self, trainer: Any, module: Any, callback: object) -> str | None:  # noqa: ANN401 - of Lightning
        """Why a fresh process could not continue exactly from here; None if it can.

        Args:
            trainer: Lightning's, at the beginning of an epoch.
            module: Its LightningModule.
            callback: Ours.
        """
        earlier = _runs_before(trainer, callback)
        if earlier is not None:
            return f"the callback {earlier} begins an epoch before ours; put ours first in the list of callbacks"
        if not hasattr(trainer.fit_loop, "_data_fetcher"):
            return "this version of Lightning keeps its loaders elsewhere"
        reason = next((found for position in self._positions if (found := position.why_not())), None)
        if reason is not None:
            return reason
        now = _fingerprint(trainer, module, callback)
        changed = next((path for path in (*now, *self._leaves) if now.get(path) != self._leaves.get(path)), None)
        if changed is None:
            return None
        return (
            f"{changed} has changed since training began, and no checkpoint of Lightning holds it; make it a "
            "buffer, or keep it by on_save_checkpoint and on_load_checkpoint, or by state_dict of a callback"
        )


def _loaders(trainer: Any) -> list[Any]:  # noqa: ANN401 - of Lightning
    """The loaders that training iterates over."""
    found = trainer.train_dataloader
    waiting, loaders = [found], []
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, Mapping):
            waiting += one.values()
        elif isinstance(one, list | tuple):
            waiting += one
        elif one is not None:
            loaders.append(one)
    return loaders


def _runs_before(trainer: Any, callback: object) -> str | None:  # noqa: ANN401 - of Lightning
    """The name of a user's callback whose hook runs before ours; None without one."""
    for one in trainer.callbacks:
        if one is callback:
            return None
        if is_users(type(one)) and FIRST_HOOK in {name for kind in type(one).__mro__ for name in vars(kind)
                                                  if is_users(kind)}:  # fmt: skip
            return type(one).__name__
    return None


def _fingerprint(trainer: Any, module: Any, callback: object) -> Leaves:  # noqa: ANN401 - of Lightning
    """What a user's module and callbacks hold beside the states that Lightning keeps."""
    excluded: list[object] = [trainer, callback, *module.parameters(), *module.buffers(), *trainer.optimizers]
    excluded += [one for one in module.modules() if type(one).__module__.startswith("torchmetrics")]
    named = {
        f"{type(one).__name__}.{name}": value
        for one in trainer.callbacks if _is_unkept(one, callback)
        for name, value in attributes_of(one).items() if name not in SET_IN_CALLBACKS
    }  # fmt: skip
    if not _is_overridden(type(module), "on_save_checkpoint"):
        base = next(kind for kind in type(module).__mro__ if kind.__name__ == "LightningModule")
        theirs = {*vars(base()), *SET_LATER}
        named |= {f"self.{name}": value for name, value in attributes_of(module).items() if name not in theirs}
        named |= {f"self.{name}": child for name, child in module.named_children()}
    return Fingerprint(excluded).take(named)


def _is_unkept(one: object, callback: object) -> bool:
    """Whether a callback is a user's, and has no state that Lightning keeps."""
    kind = type(one)
    kept = any(_is_overridden(kind, name) for name in ("state_dict", "on_save_checkpoint"))
    return one is not callback and is_users(kind) and not kept


def _is_overridden(kind: type, name: str) -> bool:
    """Whether a user's class defines a method."""
    return any(name in vars(base) and is_users(base) for base in kind.__mro__)
