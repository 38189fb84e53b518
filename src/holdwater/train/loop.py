"""The training loop: a page of a textbook, with a guard beside it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from holdwater.guard.guard import Guard
from holdwater.store.checkpoints import CheckpointFolder
from holdwater.train.lifeline import LifeLine
from holdwater.train.schedule import learning_rate
from holdwater.train.screen import Progress, Screen
from holdwater.train.settings import TrainSettings
from holdwater.train.state import TrainState
from holdwater.train.text import Batches, Tokens

PROMPT = "def "
"""How generated text begins, where the vocabulary has these characters."""


@dataclass(frozen=True, slots=True)
class Loop:
    """Trains a state to its last step."""

    settings: TrainSettings
    state: TrainState
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
            loss, rate = self.learn(state.step + 1)
            state.step += 1
            if self.line is not None:
                self.line.tell(state.step, self.guard)
            self.guard.step(loss=loss)
            if self.callback is not None:
                self.callback(self.guard)
            self.screen.show(Progress(state.step, loss, rate, self.guard))
            self._mark_epoch()
            due = state.step % settings.checkpoint_interval == 0
            if state.step % settings.eval_interval == 0 or state.step == settings.steps:
                due |= self.evaluate()
            if due:
                self.save()
        if state.saved_step != state.step:
            self.save_last()

    @property
    def goes_on(self) -> bool:
        """Whether a fresh process is to go on from here."""
        return self.guard.recycling and self.state.step < self.settings.steps

    def learn(self, step: int) -> tuple[float, float]:
        """Take one optimizer step; return its mean loss in nats and its learning rate."""
        settings, state = self.settings, self.state
        rate = learning_rate(step, peak=settings.learning_rate, warmup=settings.warmup_steps, steps=settings.steps)
        state.weights.clear_gradients()
        total = 0.0
        for _ in range(settings.gradient_accumulation):
            tokens, targets = state.batches.draw(settings.device)
            total += state.propagate(tokens, targets, share=1 / settings.gradient_accumulation)
        state.optimizer.step(learning_rate=rate, largest_norm=settings.gradient_clip)
        return total / settings.gradient_accumulation, rate

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
        folder = self.state.save(self.checkpoints, best=self.state.best_step == self.state.step)
        self.state.saved_step = self.state.step
        self.guard.mark("checkpoint", folder=folder.name)

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
