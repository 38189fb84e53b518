"""The training loop: a page of a textbook, with a guard beside it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from holdwater.actions.perform import Outcome
from holdwater.errors import CheckpointError
from holdwater.guard.guard import Guard
from holdwater.integrations.out_of_memory import is_out_of_memory, release
from holdwater.integrations.recovering_step import Loop as LentLoop
from holdwater.integrations.recovering_step import OneSampleTooLarge, RecoveringStep
from holdwater.store.checkpoints import CheckpointFolder
from holdwater.train.lifeline import LifeLine
from holdwater.train.schedule import learning_rate
from holdwater.train.screen import Progress, Screen
from holdwater.train.settings import TrainSettings
from holdwater.train.state import TrainState
from holdwater.train.text import Batches, Tokens
from holdwater.units import Step

Result = TypeVar("Result")
log = logging.getLogger("holdwater")

PROMPT = "def "
"""How generated text begins, where the vocabulary has these characters."""


@dataclass(frozen=True, slots=True)
class Loop:
    """Trains a state to its last step."""

    settings: TrainSettings
    state: TrainState
    step: RecoveringStep[tuple[Tensor, Tensor]]
    """Takes the optimizer steps."""
    tokens: Tokens
    checkpoints: CheckpointFolder
    guard: Guard
    screen: Screen
    callback: Callable[[Guard], None] | None = None
    """Called with the guard after each step."""
    line: LifeLine | None = None
    """To the supervisor, if there is one."""

    def run(self) -> None:
        """Train until the last step, or until the guard says stop; the last step is always checkpointed.

        Raises:
            CheckpointError: A checkpoint cannot be written; the older ones are untouched.
        """
        settings, state = self.settings, self.state
        while state.step < settings.steps and self.guard.stop_reason is None:
            try:
                loss, rate = self.learn(state.step + 1)
            except OneSampleTooLarge as error:
                self.guard.stop(f"{error}; use a smaller --train-seq-length or --preset, or a larger --max-memory")
                break
            state.step += 1
            if self.line is not None:
                self.line.tell(state.step, self.guard)
            self.guard.step(loss=loss)
            if self.callback is not None:
                self.call_back(self.callback)
            self.screen.show(Progress(state.step, loss, rate, self.guard))
            self._mark_epoch()
            due = state.step % settings.checkpoint_interval == 0
            if state.step % settings.eval_interval == 0 or state.step == settings.steps:
                due |= bool(self.retried("an evaluation", self.evaluate))
            if due:
                self.save()
        if state.saved_step != state.step:
            self.save_last()

    @property
    def goes_on(self) -> bool:
        """Whether a fresh process is to go on from here."""
        return self.guard.recycling and self.state.step < self.settings.steps

    def learn(self, step: int) -> tuple[float, float]:
        """Take one optimizer step; return its mean loss in nats and its learning rate.

        Args:
            step: Its number, from 1.

        Raises:
            OneSampleTooLarge: Not even one sequence fits; everything is as before the step.
            HalfUpdated: Memory ran out while the weights were changed.
        """
        settings, state = self.settings, self.state
        rate = learning_rate(step, peak=settings.learning_rate, warmup=settings.warmup_steps, steps=settings.steps)
        state.rate = rate
        place = state.batches.state()
        window = [state.batches.draw(settings.device) for _ in range(settings.gradient_accumulation)]
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
            what: Its name, for people.
            function: Can be called again from the beginning.

        Returns:
            What it returned; None where the run stops.
        """
        for again in (False, True):
            try:
                return function()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                failure = str(error).strip().splitlines()[:1] or [type(error).__name__]
            if not again:
                log.warning("memory ran out in %s (%s); released, and done again", what, failure[0])
                release()
        self.guard.stop(f"memory ran out in {what}, twice")
        return None

    @torch.no_grad()
    def evaluate(self) -> bool:
        """Measure the loss on the held-out text, always on the same batches; return whether it is the best."""
        settings, state = self.settings, self.state
        batches = Batches(
            self.tokens.validation,
            size=settings.batch_size,
            length=settings.train_seq_length,
            seed=settings.seed,
        )
        with self.guard.evaluation() as facts:
            losses = [
                state.model.loss(*batches.draw(settings.device)).item() for _ in range(settings.eval_batches)
            ]
            facts["loss"] = sum(losses) / len(losses)
        better = bool(facts["loss"] < state.best)
        state.best = min(state.best, facts["loss"])
        state.best_step = state.step if better else state.best_step
        self.screen.say(f"step {state.step}: validation loss {facts['loss']:.3f} nats a token")
        if settings.sample_length:
            self.screen.say(f"  {self.write_text(settings.sample_length)!r}")
        return better

    def write_text(self, count: int) -> str:
        """Let the model go on with a beginning; its randomness is not the run's own."""
        known = self.tokens.characters
        begin = list(PROMPT.encode()) if known is None else [known.find(c) for c in PROMPT if c in known] or [0]
        generator = torch.Generator().manual_seed(self.settings.seed)
        tokens = torch.tensor([begin], device=self.settings.device)
        return self.tokens.decode(self.state.model.generate(tokens, count, generator)[0].tolist())

    def save(self) -> None:
        """Write a checkpoint of the step that has just ended.

        Raises:
            CheckpointError: It cannot be written; the older ones are untouched.
        """
        try:
            folder = self.state.save(self.checkpoints, best=self.state.best_step == self.state.step)
        except CheckpointError as error:
            if not is_out_of_memory(error):
                raise
            log.warning("memory ran out in a checkpoint; released, and done again")
            release()
            folder = self.state.save(self.checkpoints, best=self.state.best_step == self.state.step)
        self.state.saved_step = self.state.step
        self.guard.mark("checkpoint", folder=folder.name)

    def call_back(self, callback: Callable[[Guard], None]) -> None:
        """Call the user's function."""
        self.retried("the callback", lambda: callback(self.guard))

    def save_last(self) -> None:
        """Write the last checkpoint: into memory if a fresh process goes on from it at once, and there is room."""
        if self.goes_on and self.line is not None and self.line.save(self.state):
            return
        self.save()

    def _mark_epoch(self) -> None:
        """Mark each time that as many tokens were seen as the text has."""
        every = self.state.batches.steps_in_epoch / self.settings.gradient_accumulation
        if int(self.state.step / every) > int((self.state.step - 1) / every):
            self.guard.mark("epoch", number=int(self.state.step / every))


def recovering_step(
    settings: TrainSettings, state: TrainState, *, deaths: int = 0
) -> RecoveringStep[tuple[Tensor, Tensor]]:
    """Take the steps of a state so that they outlive a lack of memory.

    Args:
        settings: Of the run.
        state: What is trained. The model draws nothing at random and has no batch statistics.
        deaths: Processes of this run that were killed for want of memory: this one begins with smaller parts.
    """

    def update() -> None:
        """Change the weights by the learning rate of the step."""
        state.optimizer.step(learning_rate=state.rate, largest_norm=settings.gradient_clip)

    lent: LentLoop[tuple[Tensor, Tensor]] = LentLoop(
        propagate=lambda batch, share: state.propagate(*batch, share=share),
        rows=lambda batch: len(batch[0]),
        cut=lambda batch, begin, end: (batch[0][begin:end], batch[1][begin:end]),
        weigh=lambda batch: float(batch[0].numel()),
        clear=state.weights.clear_gradients,
        update=update,
        weights=lambda: (state.weights.decayed, state.weights.undecayed),
    )
    factor = settings.batch_size_reduction_factor
    step = RecoveringStep(lent, micro_batch=settings.batch_size, factor=factor)
    step.micro_batch = max(int(settings.batch_size * factor**deaths), 1)
    return step
