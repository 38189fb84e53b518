"""`holdwater run --supervise`: a script's run goes on in one process after another, each watched and judged."""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from holdwater.actions.perform import Outcome
from holdwater.budget import Terms
from holdwater.config.replacement import replacement_config
from holdwater.guard.summary import join_summaries
from holdwater.observe.observed_run import ObservedRun
from holdwater.policy.restarts import RestartConfig
from holdwater.process.channel import Channel, create_channel
from holdwater.process.restart_context import RestartContext, actions_file, reason_file
from holdwater.process.spawn import ForkedProcess
from holdwater.store.in_memory_checkpoint import InMemoryFolder
from holdwater.store.run_store import RunStore
from holdwater.supervise.preimport import prepare
from holdwater.supervise.supervisor import Launch, Supervisor, TrainerProcess
from holdwater.units import Step

log = logging.getLogger("holdwater")

REGISTER = (
    "register the script's state with holdwater.resumable(name, object), and go through its loop with "
    "`for step in holdwater.steps(total)`"
)


class SupervisedRun:
    """One script, in one process after another."""

    def __init__(
        self, values: Mapping[str, Any], words: Sequence[str], terms: Terms, out: Path, place: Path
    ) -> None:
        """Prepare to start it.

        Args:
            values: The flags, by the name of the key, and `steps`.
            words: What is run.
            terms: What its budgets follow from.
            out: The folder of the run.
            place: A folder for what the processes say of themselves.
        """
        self._words, self._terms, self._out, self._place = words, terms, out, place
        self._replacement = replacement_config(values)
        self._settings = {
            "limit": int(terms.budgets().host.limit),
            "beside_device": int(replace(terms, max_memory=None).budgets().host.limit),
            "device_limit": terms.max_memory,
            **asdict(self._replacement),
            "checkpoint_interval": values["checkpoint_interval"],
            "keep_checkpoints": values["keep_checkpoints"],
        }
        self._last_step = values["steps"]
        self._in_memory = InMemoryFolder(out)
        self._store = RunStore(out)
        self._summaries: list[dict[str, Any]] = []
        self._ended: dict[str, Any] | None = None
        self._measured: list[dict[str, Any]] = []
        self._known: dict[str, Any] | None = None
        self._exit_code = 0
        self._observed: ObservedRun | None = None
        preimport = prepare(words)
        self._supervisor = Supervisor(
            Launch(
                target="holdwater.frameworks.observed_script:main",
                argv=(),
                modules=preimport.modules,
                settled=preimport.environment,
                environment=self._environment,
            ),
            self._new_channel(0),
            config=RestartConfig(in_all=values["max_restarts"]),
            hang_timeout=values["hang_timeout"],
        )

    def run(self) -> dict[str, Any]:
        """Run it to its end; return the judgement of all processes as JSON, with the exit code."""
        process: ForkedProcess | None = self._start()
        while process is not None:
            process = self._live(process)
        self._supervisor.close()
        self._in_memory.remove()
        summary = join_summaries(self._summaries)
        summary["actions"] = sorted([*summary["actions"], *self._measured], key=lambda action: action["step"])
        if self._observed is not None:
            self._observed.write_down(summary)
        self._store.close()
        return summary | {"exit_code": self._exit_code}

    def _start(self) -> ForkedProcess:
        """Start the next process."""
        supervisor, number = self._supervisor, self._supervisor.trainer.number + 1
        channel = supervisor.channel if number == 0 else self._new_channel(number)
        supervisor.argv = ["script.py", str(self._folder(number)), str(self._last_step), *self._words]
        return supervisor.start(channel)

    def _live(self, process: ForkedProcess) -> ForkedProcess | None:
        """Watch one process to its end; return the next one, which has started meanwhile, if there is one."""
        following: list[ForkedProcess] = []
        channel, folder = self._supervisor.channel, self._folder(self._supervisor.trainer.number)
        asks = self._known is None
        observed = ObservedRun(
            process,
            folder,
            self._terms,
            self._store,
            words=self._words,
            asks=asks,
            first_step=self._goes_on_from(),
        )
        self._observed = observed
        observed.follow(
            each_turn=lambda: self._turn(channel), at_end=lambda: following.extend(self._go_on(observed))
        )
        summary = observed.summary()
        self._note_actions(folder)
        observed.write_down(summary)
        if summary["verdict"] == "leak":
            self._known = summary
        self._summaries.append(summary)
        return following[0] if following else None

    def _go_on(self, observed: ObservedRun) -> list[ForkedProcess]:
        """Decide what follows a process that has ended, and start the next one if that is it."""
        answer = self._supervisor.answer()
        self._exit_code = answer.exit_code
        if self._supervisor.channel.get("resumable") == 0:
            self._exit_code = observed.exit_code
            if answer.again:
                log.warning("%s", _not_resumable(answer.reason))
            elif self._replacement.is_configured:
                log.warning("the process was never replaced: %s", REGISTER)
            return []
        if not answer.again:
            if answer.cause not in {"done", "asked to stop"}:
                log.error("the script is not started again: %s", answer.reason)
            return []
        self._note_end(recycled=answer.cause == "recycled")
        if answer.cause != "recycled":
            log.warning("the script is started again: %s", answer.reason)
        return [self._start()]

    def _goes_on_from(self) -> int:
        """The step of the newest checkpoint, as far as the folders' names tell."""
        folders = [
            *(self._in_memory.path / "checkpoints").glob("step-*"),
            *(self._out / "checkpoints").glob("step-*"),
        ]
        return max((int(path.name.removeprefix("step-")) for path in folders), default=0)

    def _turn(self, channel: Channel) -> None:
        """Between two looks at the process."""
        self._supervisor.turn()
        self._measure(channel)

    def _measure(self, channel: Channel) -> None:
        """Note what replacing a process has freed and cost, when the next one has made its first step."""
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

    def _note_actions(self, folder: Path) -> None:
        """Note what the process has done about its memory."""
        file = actions_file(folder / "channel")
        for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
            row = json.loads(line)
            self._store.outcome(Outcome(**row))
            self._measured.append(row)

    def _note_end(self, *, recycled: bool) -> None:
        """Note how a process ended."""
        channel = self._supervisor.channel
        self._ended = None
        if recycled:
            self._ended = {
                "step": channel.get("steps"),
                "reason": reason_file(self._folder(self._supervisor.trainer.number) / "channel").read_text(
                    "utf-8"
                ),
                "in_use": channel.get("in_use"),
                "at": channel.get_seconds("left_at"),
            }

    def _folder(self, number: int) -> Path:
        """Where a process leaves what it says."""
        return self._place / f"process-{number}"

    def _new_channel(self, number: int) -> Channel:
        """The channel of a process."""
        folder = self._folder(number)
        folder.mkdir()
        create_channel(folder / "channel")
        return Channel(folder / "channel")

    def _environment(self, trainer: TrainerProcess) -> Mapping[str, str]:
        """The environment of a process."""
        facts = RestartContext(
            number=trainer.number,
            channel_path=str(self._folder(trainer.number) / "channel"),
            in_memory=str(self._in_memory.path),
            out=str(self._out.resolve()),
            supervisor=os.getpid(),
            out_of_memory_restarts=trainer.out_of_memory_restarts,
            explained=self._known is not None,
            settings=self._settings,
        )
        return os.environ | facts.as_environment()


def _not_resumable(reason: str) -> str:
    """Why a script is not started again."""
    return f"{reason}; it is not started again, for it would begin anew: {REGISTER}"
