"""`holdwater run --supervise`: keep a script running in one process after another, each observed and judged."""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from holdwater.actions.perform import Outcome
from holdwater.budget import Terms
from holdwater.config.replacement import replacement_config
from holdwater.guard.summary import join_summaries
from holdwater.observe.news import News
from holdwater.observe.observed_run import ObservedRun
from holdwater.policy.restarts import Answer, RestartConfig
from holdwater.process.channel import Channel
from holdwater.process.channel_folder import channel_folder
from holdwater.process.restart_context import SEED_VARIABLE, RestartContext, actions_file, drawn_seed, refusal_file
from holdwater.process.spawn import ForkedProcess
from holdwater.store.checkpoints import CheckpointFolder
from holdwater.store.in_memory_checkpoint import InMemoryFolder
from holdwater.store.run_store import open_store
from holdwater.supervise.preimport import prepare
from holdwater.supervise.restart_loop import RunHooks, keep_going, recycled_end
from holdwater.supervise.supervisor import Launch, Supervisor, TrainerProcess
from holdwater.units import Step

log = logging.getLogger("holdwater")

REGISTER = (
    "register the script's state with holdwater.resumable(name, object), and go through its loop with "
    "`for step in holdwater.steps(total)`"
)


class SupervisedRun(RunHooks):
    """One script, in one process after another; what it adds to the restart loop: each process is observed."""

    what = "script"
    news: News | None = None
    """Tells what is found while the run goes on; None tells nothing."""

    def __init__(
        self, values: Mapping[str, Any], words: Sequence[str], terms: Terms, out: Path, closing: ExitStack
    ) -> None:
        """Prepare to start it.

        Args:
            values: The flags, by the name of the key, and `steps`.
            words: What is run.
            terms: What its budgets follow from.
            out: The folder of the run.
            closing: Removes the folders of all channels in the end.
        """
        self._words, self._terms, self._out = words, terms, out
        self._replacement = replacement_config(values)
        self._settings = {
            "seed": _seed_of(out),
            "limit": int(terms.budgets().host.limit),
            "beside_device": int(replace(terms, max_memory=None).budgets().host.limit),
            "device_limit": terms.max_memory,
            **asdict(self._replacement),
            "checkpoint_interval": values["checkpoint_interval"],
            "keep_checkpoints": values["keep_checkpoints"],
        }
        self._last_step = values["steps"]
        self._in_memory = InMemoryFolder(out)
        self._store = open_store(out)
        self._summaries: list[dict[str, Any]] = []
        self._ended: dict[str, Any] | None = None
        """How the process before the newest one ended, if it was replaced and that is not recorded yet."""
        self._end: dict[str, Any] = {}
        """How the newest process ended, if not well."""
        self._measured: list[dict[str, Any]] = []
        self._known: dict[str, Any] | None = None
        """The judgement of a process in which a leak was found: the following ones need not explain it again."""
        self._resumable = False
        """Whether a process of the run has registered its state."""
        self._observed: ObservedRun | None = None
        """The process that is followed now; None if it cannot be observed."""
        preimport = prepare(words)
        self._supervisor = Supervisor(
            Launch(
                target="holdwater.frameworks.observed_script:main",
                argv=self._argv,
                channel=lambda _: closing.enter_context(channel_folder(out)),
                modules=preimport.modules,
                settled=preimport.environment,
                folder=preimport.folder,
                environment=self._environment,
            ),
            config=RestartConfig(in_all=values["max_restarts"]),
            hang_timeout=values["hang_timeout"],
        )

    def run(self) -> dict[str, Any]:
        """Run it to its end; return the judgement of all processes as JSON, if there is one, and the exit code."""
        try:
            exit_code = keep_going(self._supervisor, self)
        finally:
            self._in_memory.remove(rescue=True)
        try:
            return self._join() | {"exit_code": exit_code} | (self._end if exit_code else {})
        except Exception as error:  # noqa: BLE001 - the exit code is the script's
            log.warning("there is no verdict: %r", error)
            return {"exit_code": exit_code}

    def _join(self) -> dict[str, Any]:
        """Join and store the judgements of all processes."""
        summary = join_summaries(self._summaries)
        summary["actions"] = sorted([*summary["actions"], *self._measured], key=lambda action: action["step"])
        if self._observed is not None:
            self._observed.write_down(summary)
            self._observed.close()
        self._store.close()
        return summary

    def begin(self, process: ForkedProcess) -> None:
        """Begin to observe a process; the one before it is finished.

        Args:
            process: That has just been started.
        """
        if self._observed is not None:
            self._observed.close()
        asks, first_step = self._known is None, self._goes_on_from()
        self._observed = None
        try:
            self._observed = ObservedRun(
                process, self._supervisor.channel, self._terms, self._store,
                words=self._words, asks=asks, first_step=first_step, news=self.news,
            )  # fmt: skip
        except Exception as error:  # noqa: BLE001 - what is started is followed to its end
            log.warning("this process is not observed: %r", error)

    def pause(self) -> float:
        """Seconds until the next look."""
        return super().pause() if self._observed is None else self._observed.pause()

    def look(self) -> None:
        """Take in what the process has done since the last look."""
        try:
            self._measure(self._supervisor.channel)
            if self._observed is not None:
                self._observed.look()
        except Exception as error:  # noqa: BLE001 - what is started is followed to its end
            log.warning("this process is not observed any more: %r", error)
            self._observed = None

    def amend(self, answer: Answer) -> Answer:
        """No process follows one that has not registered its state: it would begin again from the first step.

        Args:
            answer: What follows as far as the supervisor knows.
        """
        own_end = answer.cause == "asked to stop" and not self._supervisor.forced
        if self._supervisor.channel.get("resumable"):
            self._resumable = True
            return replace(answer, exit_code=self._supervisor.own_exit_code) if own_end else answer
        refusal = refusal_file(self._supervisor.channel.path)
        if self._resumable and not refusal.exists():  # it ended before its loop began
            return answer
        if answer.again:
            why = refusal.read_text(encoding="utf-8") if refusal.exists() else f"it would begin anew: {REGISTER}"
            log.warning("%s; it is not started again: %s", answer.reason, why)
        elif self._replacement.is_configured and not refusal.exists():
            log.warning("the process was never replaced: %s", REGISTER)
        return replace(answer, again=False, cause="not resumable", exit_code=self._supervisor.own_exit_code)

    def finish(self) -> None:
        """Judge a process that has ended, and keep its judgement."""
        if self._observed is None:
            return
        try:
            self._judge(self._observed)
        except Exception as error:  # noqa: BLE001 - the next process runs already
            log.warning("this process is not judged: %r", error)

    def _judge(self, observed: ObservedRun) -> None:
        """Judge a process that has ended, and keep its judgement."""
        observed.finish()
        summary = observed.summary()
        self._end = observed.ending()
        self._note_actions(observed.channel.path)
        observed.write_down(summary)
        if summary["verdict"] == "leak":
            self._known = summary
        self._summaries.append(summary)

    def _goes_on_from(self) -> int:
        """The step of the newest checkpoint, by the names of the folders."""
        folders = [
            *(self._in_memory.path / "checkpoints").glob("step-*"),
            *(self._out / "checkpoints").glob("step-*"),
        ]
        return max((int(path.name.removeprefix("step-")) for path in folders), default=0)

    def _measure(self, channel: Channel) -> None:
        """Record what replacing a process has freed and cost, when the next one has made its first step."""
        ended = self._ended
        if ended is None or not channel.get_seconds("went_on_at"):
            return
        self._ended = None
        outcome = Outcome(
            Step(ended["step"]),
            "recycle",
            ended["reason"],
            int(ended["in_use"]) - channel.get("in_use"),
            channel.get_seconds("went_on_at") - ended["at"],
        )
        self._store.outcome(outcome)
        row = {name: getattr(outcome, name) for name in ("step", "action", "reason", "freed_bytes", "seconds")}
        self._measured.append(row)

    def _note_actions(self, channel_path: Path) -> None:
        """Record what a process has done about its memory."""
        file = actions_file(channel_path)
        for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
            row = json.loads(line)
            self._store.outcome(Outcome(**row))
            self._measured.append(row)

    def note_end(self, *, recycled: bool) -> None:
        """Take note of how a process ended: once the next one makes a step, what that has cost is recorded.

        Args:
            recycled: Whether it was replaced; otherwise it has died.
        """
        self._ended = recycled_end(self._supervisor.channel, left_at="left_at") if recycled else None

    def _argv(self, _: TrainerProcess) -> Sequence[str]:
        """The arguments of a process: see `frameworks.observed_script`."""
        return ["script.py", str(self._supervisor.channel.path.parent), str(self._last_step), *self._words]

    def _environment(self, trainer: TrainerProcess) -> Mapping[str, str]:
        """The environment of a process."""
        facts = RestartContext(
            number=trainer.number,
            channel_path=str(self._supervisor.channel.path),
            in_memory=str(self._in_memory.path),
            out=str(self._out.resolve()),
            supervisor=os.getpid(),
            out_of_memory_restarts=trainer.out_of_memory_restarts,
            explained=self._known is not None,
            settings=self._settings,
        )
        return os.environ | facts.as_environment()


def _seed_of(out: Path) -> int:
    """The seed of the random states that a script does not seed; a run that is continued has one."""
    newest = CheckpointFolder(out / "checkpoints").newest(log.debug)
    if newest is not None and "seed" in newest.state:
        return int(newest.state["seed"])
    return int(os.environ.get(SEED_VARIABLE) or drawn_seed())
