"""The training loop of the built-in training, with a guard."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from holdwater.actions.perform import Outcome
from holdwater.errors import CheckpointError, DataError, HoldwaterError
from holdwater.guard.guard import Guard
from holdwater.oom.out_of_memory import is_out_of_memory, release
from holdwater.oom.recovering_step import OneSampleTooLarge, RecoveringStep
from holdwater.policy.micro_batch import after_out_of_memory
from holdwater.store.checkpoints import CheckpointFolder
from holdwater.train.progress import Progress, Screen
from holdwater.train.schedule import learning_rate
from holdwater.train.settings import TrainSettings
from holdwater.train.supervisor_link import SupervisorLink
from holdwater.train.trainable import Trainable
from holdwater.units import Step

Result = TypeVar("Result")
log = logging.getLogger("holdwater")


class NotFiniteError(HoldwaterError):
    """A loss, or what is trained, is not finite, and such a run is to stop."""


@dataclass(frozen=True, slots=True)
class TrainingLoop:
    """Trains a state to its last step."""

    settings: TrainSettings
    state: Trainable
    step: RecoveringStep[Any]
    """Takes the optimizer steps."""
    checkpoints: CheckpointFolder
    guard: Guard
    screen: Screen
    callback: Callable[[Guard], None] | None = None
    """Called with the guard after each step."""
    link: SupervisorLink | None = None
    """The link to the supervisor, if there is one."""
    said: set[str] = field(default_factory=set)
    """Warnings that are not repeated."""

    def run(self) -> None:
        """Train until the last step, or until the guard says stop; the last step is always checkpointed.

        Raises:
            CheckpointError: A checkpoint cannot be written; the older ones are untouched.
            DataError: An example cannot be read; what was learned before it is in a checkpoint.
            NotFiniteError: A loss, or what is trained, is not finite, and such a run is to stop.
        """
        try:
            self._take_steps()
        except DataError:
            if self.state.saved_step != self.state.step:
                self.save()
            raise
        if self.state.saved_step != self.state.step:
            self.save_last()

    def _take_steps(self) -> None:
        """Take steps, and do what is due after each."""
        settings, state = self.settings, self.state
        while state.step < settings.steps and self.guard.stop_reason is None:
            epochs = state.epochs
            try:
                loss, rate = self.learn(state.step + 1)
            except OneSampleTooLarge as error:
                self.guard.stop(f"{error}; use a smaller --train-seq-length or --preset, or a larger --max-memory")
                break
            state.step += 1
            if self.link is not None:
                self.link.report_step(state.step, self.guard)
            self.guard.step(loss=loss)
            if not math.isfinite(loss):
                self._meet_non_finite(f"the loss of step {state.step} is {loss}")
            if self.callback is not None:
                self.call_back(self.callback)
            self.screen.show(Progress(state.step, loss, rate, self.guard, state.pictures))
            self._mark_epoch(epochs)
            due = state.step % settings.checkpoint_interval == 0
            if state.step % settings.eval_interval == 0 or state.step == settings.steps:
                due |= bool(self.retried("an evaluation", self.evaluate))
            if due:
                self.save()

    @property
    def goes_on(self) -> bool:
        """Whether a fresh process is to continue from here."""
        return self.guard.recycling and self.state.step < self.settings.steps

    def learn(self, step: int) -> tuple[float, float]:
        """Take one optimizer step; return its mean loss in nats and its learning rate.

        Args:
            step: Its number, from 1.

        Raises:
            OneSampleTooLarge: Not even one sequence fits; everything is as before the step.
            DataError: An example cannot be read; everything is as before the step.
            HalfUpdated: Memory ran out while the weights were changed.
        """
        settings, state = self.settings, self.state
        rate = learning_rate(step, peak=settings.learning_rate, warmup=settings.warmup_steps, steps=settings.steps)
        state.rate = rate
        place = state.batches.state()
        try:
            window = [state.batches.draw(settings.device) for _ in range(settings.gradient_accumulation)]
        except DataError:
            state.batches.restore(place)
            raise
        recovered = self.step.recovered
        try:
            loss = self.step.take(window)
        except OneSampleTooLarge:
            state.batches.restore(place)
            raise
        finally:
            if self.step.recovered is not recovered:
                text = "; ".join(self.step.recovered[len(recovered) :])
                self.guard.note(Outcome(Step(step), "micro_batch", text, 0, 0.0))
        return loss, rate

    def retried(self, what: str, function: Callable[[], Result]) -> Result | None:
        """Call a function, and once more if memory runs out; if that does not help the run stops.

        Args:
            what: Its name, for messages.
            function: Can be called again from the beginning.

        Returns:
            Its return value; None if the run stops.
        """
        for again in (False, True):
            try:
                return function()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                failure = str(error).strip().splitlines()[:1] or [type(error).__name__]
            if not again:
                log.warning("memory ran out in %s (%s); memory was released, and it is repeated", what, failure[0])
                release()
        self.guard.stop(f"memory ran out in {what}, twice")
        return None

    def evaluate(self) -> bool:
        """Measure the validation loss; return whether it is the lowest so far."""
        settings, state, began = self.settings, self.state, time.perf_counter()
        with self.guard.evaluation() as facts:
            loss = facts["loss"] = state.evaluate()
        better = bool(loss < state.best)
        state.best = min(state.best, loss)
        state.best_step = state.step if better else state.best_step
        self.screen.say(f"step {state.step:,}: validation loss {loss:.3f} nats a token{state.remarks}")
        if settings.sample_length and math.isfinite(loss):
            self.screen.say(f"  {state.sample(settings.sample_length)!r}")
        self.screen.leave_out(time.perf_counter() - began)
        return better

    def save(self) -> None:
        """Write a checkpoint of the step that has just ended, if all that it holds is finite.

        Raises:
            CheckpointError: It cannot be written; the older ones are untouched.
            NotFiniteError: It would hold NaN or infinity, and such a run is to stop.
        """
        if not self._is_finite():
            return
        try:
            folder = self.state.save(self.checkpoints, best=self.state.best_step == self.state.step)
        except CheckpointError as error:
            if not is_out_of_memory(error):
                raise
            log.warning("memory ran out in a checkpoint; memory was released, and it is repeated")
            release()
            folder = self.state.save(self.checkpoints, best=self.state.best_step == self.state.step)
        self.state.saved_step = self.state.step
        self.guard.mark("checkpoint", folder=folder.name)

    def call_back(self, callback: Callable[[Guard], None]) -> None:
        """Call the user's function."""
        self.retried("the callback", lambda: callback(self.guard))

    def save_last(self) -> None:
        """Write the last checkpoint: to memory if a fresh process continues at once, and there is space."""
        if self.settings.non_finite != "continue" and not self._is_finite():
            return
        if self.goes_on and self.link is not None and self.link.save(self.state):
            return
        self.save()

    def _is_finite(self) -> bool:
        """Whether all that a checkpoint would hold is finite."""
        found = self.state.first_non_finite()
        if found:
            self._meet_non_finite(f"after step {self.state.step}, {found} is not finite and in no checkpoint")
        return not found

    def _meet_non_finite(self, what: str) -> None:
        """Stop the run, or warn once.

        Args:
            what: Is not finite.

        Raises:
            NotFiniteError: The run is to stop.
        """
        how = self.settings.non_finite
        if how == "stop":
            raise NotFiniteError(what)
        if "non_finite" not in self.said:
            self.said.add("non_finite")
            done = "such a step changes nothing" if how == "skip" else "training continues"
            log.warning("%s: %s (--non-finite %s)", what, done, how)

    def _mark_epoch(self, before: float) -> None:
        """Mark the end of each epoch."""
        if int(self.state.epochs) > int(before):
            self.guard.mark("epoch", number=int(self.state.epochs))


def recovering_step(settings: TrainSettings, state: Trainable, *, deaths: int = 0) -> RecoveringStep[Any]:
    """Wrap the steps of a state so that they recover from out-of-memory.

    Args:
        settings: The run's.
        state: The model in training.
        deaths: Processes of this run that were killed out of memory: this one begins with smaller micro-batches.
    """
    factor = settings.batch_size_reduction_factor
    step = RecoveringStep(state.step_functions(), micro_batch=state.micro_batch, factor=factor)
    step.micro_batch = after_out_of_memory(state.micro_batch, deaths, factor)
    return step
