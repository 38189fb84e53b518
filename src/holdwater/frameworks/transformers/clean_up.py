"""Release unused memory every few steps and after evaluations of a Trainer, where that was measured to pay."""

import time

from holdwater.actions.levers import Levers
from holdwater.actions.perform import Outcome, applies, perform
from holdwater.errors import ConfigError
from holdwater.policy.clean_ups import CleanUps
from holdwater.policy.decision import RELEASE, ActionName, Decision
from holdwater.probes.observer import Observer
from holdwater.standard_error import write_line
from holdwater.units import Step, format_size


class RegularCleanUp:
    """Collects garbage, clears framework caches and trims the heap; says what that cost and freed."""

    def __init__(self, every: int) -> None:
        """Prepare.

        Args:
            every: Steps between two clean-ups.

        Raises:
            ConfigError: There is no step between two.
        """
        if every < 1:
            raise ConfigError(
                f"cleanup_every_n_steps is {every}, but a clean-up needs a step before it; set it to 1 or more, "
                "or leave it out for no clean-up"
            )
        self.every = every
        self.outcomes: list[Outcome] = []
        """What was done, the newest last; at most 1,000."""
        self._observer = Observer(time.monotonic, probes=())
        self._clean_ups = CleanUps()
        self._cleaned_at = -1
        self._resting: set[ActionName] = set()

    def after_step(self, step: int) -> None:
        """Clean up if it is due; see what the clean-up before was worth.

        Args:
            step: That has ended.
        """
        if self._cleaned_at >= 0 and step > self._cleaned_at:
            self._cleaned_at = -1
            self._say_what_rests(step, self._clean_ups.note_next(self._observer.in_use()))
        if step % self.every == 0:
            self.clean_up(step, f"every {self.every} steps")

    def clean_up(self, step: int, why: str) -> None:
        """Carry out what is worth its time.

        Args:
            step: That ended last.
            why: For the line that is printed.
        """
        done = [outcome for action in RELEASE if (outcome := self._release(action, step, why)) is not None]
        if not done:
            return
        self._cleaned_at = step
        self.outcomes = [*self.outcomes[-1000 + len(done) :], *done]
        parts = ", ".join(
            f"{one.action} {one.error or format_size(max(one.freed_bytes, 0))} in {one.seconds:.3f} s"
            for one in done
        )
        freed, took = sum(max(one.freed_bytes, 0) for one in done), sum(one.seconds for one in done)
        write_line(
            f"holdwater: step {step}: the clean-up ({why}) freed {format_size(freed)} in {took:.3f} s: {parts}"
        )

    def as_rows(self) -> list[dict[str, object]]:
        """What was done, as actions of the JSON verdict."""
        return [
            {
                "step": int(one.step), "action": one.action, "reason": f"clean-up, {one.reason}",
                "freed_bytes": one.freed_bytes, "seconds": one.seconds,
            }
            for one in self.outcomes
        ]  # fmt: skip

    def _release(self, action: ActionName, step: int, why: str) -> Outcome | None:
        """Carry out one release; None if it has nothing to act on, or did not pay."""
        in_use, now = self._observer.in_use, time.monotonic()
        if not applies(action) or not self._clean_ups.is_worth(action, in_use(), now):
            return None
        decision = Decision(Step(step), action, why)
        outcome = perform(decision, Levers(), measure=lambda: sum(in_use()), elapsed=time.monotonic)
        self._clean_ups.learn(
            action, freed=outcome.freed_bytes, took=outcome.seconds, in_use=in_use(), seconds=time.monotonic()
        )
        return outcome

    def _say_what_rests(self, step: int, useless: tuple[ActionName, ...]) -> None:
        """Say once of each release that it did not pay."""
        new = [action for action in useless if action not in self._resting]
        self._resting |= set(new)
        if new:
            write_line(
                f"holdwater: step {step}: {', '.join(new)} left less than 1 MiB free after the next step; "
                "not done again until memory has grown by 5 %"
            )
