"""One callback that looks after the memory of a Transformers `Trainer`, or of TRL's.

    trainer = Trainer(..., callbacks=[holdwater.HoldwaterCallback(max_memory="20GB")])
    trainer.train(resume_from_checkpoint=last_checkpoint(trainer.args.output_dir))

It says whether memory leaks, with the line that allocates and the name that holds (a watcher is started beside the
process for that); under `holdwater run` the observer of that command does so, and the callback only adds what
follows. It keeps a budget: unused memory is released when it is short, and the run stops with a checkpoint and
exit code 75 when that is not enough, in all processes of a distributed run after the same step. Under `holdwater
run --supervise` a fresh process continues instead. It reports memory to whatever `report_to` is on.

A callback cannot repeat a step: `holdwater.frameworks.transformers.trainer` recovers from out-of-memory inside a
step. A kill within training is told by the watcher, but not why it came: only a parent is told the exit status.
"""

import atexit
import json as json_text
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdwater.budget import Terms
from holdwater.frameworks.attached_session import AttachedSession, observing_session
from holdwater.frameworks.transformers.begin_checks import (
    refuse_inexact_checkpoints,
    warning_about_checkpoints,
    warnings_at_begin,
)
from holdwater.frameworks.transformers.clean_up import RegularCleanUp
from holdwater.frameworks.transformers.ranks import CommonStop
from holdwater.frameworks.transformers.recycle import RecycleCallback
from holdwater.frameworks.transformers.reported_keys import report_keys
from holdwater.guard.summary import SCHEMA
from holdwater.observe.attached_run import WatchRequest
from holdwater.probes.machine import read_machine
from holdwater.probes.observer import Observer
from holdwater.process.restart_context import RestartContext, actions_file
from holdwater.report.explained import explanations_in_words
from holdwater.signal_errors import not_the_scripts, suppressed
from holdwater.standard_error import write_line
from holdwater.supervise.budget_callback import BudgetCallback, Ending
from holdwater.units import Bytes, parse_size

GRAVE = ("leak", "fragmentation", "pressure")
"""Verdicts that are told in full at the end."""
NOWHERE = Path(os.devnull) / "channel"
"""Where nothing can be written."""


class HoldwaterCallback(RecycleCallback):
    """Verdict, explanation, budget, clean-ups, marks and reports of a Trainer's memory."""

    def __init__(
        self,
        *,
        max_memory: str | Bytes | None = None,
        out: str | Path | None = None,
        json: str | Path | None = None,
        cleanup_every_n_steps: int | None = None,
    ) -> None:
        """Prepare; nothing is observed before training begins.

        Args:
            max_memory: The budget that is kept, such as `70GB`: of the device, or of the host where there is none.
                None keeps none; under `holdwater run --supervise` the command's budget holds.
            out: The folder of the run; None stores nothing.
            json: A file for the judgement, written when training ends; other ranks add `.rank-N`.
            cleanup_every_n_steps: Steps between two clean-ups, which follow evaluations too, where that was
                measured to pay; None does none.

        Raises:
            ConfigError: A setting cannot work.
            UnitError: The budget is no size.
        """
        super().__init__()
        size = parse_size(max_memory, bare_unit="GB") if isinstance(max_memory, str) else max_memory
        self._max_memory, self._out, self._json = size, None if out is None else Path(out), json
        self._clean_up = None if cleanup_every_n_steps is None else RegularCleanUp(cleanup_every_n_steps)
        self.summary: dict[str, Any] | None = None
        """The judgement as JSON (schema 1), when training has ended; without a verdict under `holdwater run`,
        which gives it itself."""
        self._attached: AttachedSession | None = None
        self._ranks = CommonStop(0)
        self._trainings = 0
        self._memory = Observer(lambda: 0.0, probes=())
        self._told_of_checkpoints = False
        self._actions: Path | None = None

    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Look for a checkpoint that would break a resume."""
        del control, kwargs
        if getattr(state, "is_world_process_zero", True):
            self._tell_of_checkpoints(args)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Begin to observe, to keep the budget, and to report.

        Raises:
            ConfigError: The budget is spent already, or checkpoints could not be gone on from.
        """
        super().on_train_begin(args, state, control, **kwargs)
        self._ending, self.summary = None, None
        self._trainings += 1
        self._ranks = CommonStop(self._trainings)
        if self._restart is not None or self._max_memory is not None:
            refuse_inexact_checkpoints(args)
        if self._ranks.rank == 0:
            self._warn(args, kwargs.get("train_dataloader"))
        limits = None if self._max_memory is None or self._restart is not None else self._limits(self._max_memory)
        self._observe(state.global_step)
        if limits is not None:
            self._keep_budget(limits)
        report_keys(sys._getframe(1), self.reported)  # noqa: SLF001 - whoever calls the callbacks

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Count a step; release memory, clean up, or ask for a checkpoint to stop after."""
        if self._attached is not None:
            self._attached.session.step()
        super().on_step_end(args, state, control, **kwargs)
        if self._clean_up is not None:
            self._clean_up.after_step(state.global_step)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Mark an evaluation, and clean up after it."""
        del args, control, kwargs
        if self._attached is not None:
            self._attached.mark("evaluation")
        if self._clean_up is not None:
            self._clean_up.clean_up(state.global_step, "after an evaluation")

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Mark a checkpoint; end the process if it was saved for that.

        Raises:
            SystemExit: The budget is spent, and the run stops (75).
        """
        if self._attached is not None:
            self._attached.mark("checkpoint")
        if self._ending is not None and self._restart is None:
            self._finish(state.global_step)
            self._ranks.wait_for_all()  # a launcher ends the others when the first one ends
        super().on_save(args, state, control, **kwargs)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Judge, tell the verdict, and write it."""
        del args, control, kwargs
        self._finish(state.global_step)

    def reported(self) -> dict[str, float]:
        """Memory now and the worst leak so far, for `report_to`: numbers by their key, sizes in bytes."""
        host, device = self._memory.in_use()
        seen = None if self._attached is None else self._attached.newest()
        found = [] if seen is None else seen["findings"]
        rates = [row["rate"]["bytes_per_step"] for row in found if row["verdict"] == "leak" and row["rate"]]
        return {
            "memory/host_bytes": float(host),
            **({"memory/device_bytes": float(device)} if device else {}),
            **({"memory/leak_bytes_per_step": max(rates)} if rates else {}),
        }

    def _end_after(self, step: int) -> Ending | None:
        """How this process ends after a step: with all others of the run, where there are others."""
        ending = super()._end_after(step)
        if self._restart is not None or not self._ranks.is_needed:
            return ending
        reason = self._ranks.agree(step, None if ending is None else ending.reason)
        return None if reason is None else Ending(recycled=False, reason=reason)

    def _tell_of_checkpoints(self, arguments: Any) -> None:  # noqa: ANN401 - of Transformers
        """Warn of an incomplete newest checkpoint, once."""
        folder, again = getattr(arguments, "output_dir", None), self._told_of_checkpoints
        if folder is None or again:
            return
        self._told_of_checkpoints = True
        with suppressed(OSError):
            said = warning_about_checkpoints(folder)
            if said:
                write_line(f"holdwater: warning: {said}")

    def _warn(self, arguments: Any, loader: Any) -> None:  # noqa: ANN401 - of Transformers, and of torch
        """Say what will multiply memory or change the run; a mistake of ours costs no run."""
        self._tell_of_checkpoints(arguments)
        try:
            for said in warnings_at_begin(arguments, loader):
                write_line(f"holdwater: warning: {said}")
        except not_the_scripts(Exception) as error:
            write_line(f"holdwater: the arguments of the training could not be looked at: {error!r}")

    def _observe(self, step: int) -> None:
        """Have this process watched, unless `holdwater run` does."""
        self._finish_late()
        if observing_session() is not None:
            return
        out = None if self._out is None else str(self._out.resolve())
        try:
            self._attached = AttachedSession(
                WatchRequest(out=out, max_memory=self._max_memory, first_step=step, rank=self._ranks.rank)
            )
        except not_the_scripts(Exception) as error:  # the observer never kills what it observes
            write_line(f"holdwater: this training is not observed, and there is no verdict: {error!r}")
        atexit.register(self._finish_late)

    def _finish_late(self) -> None:
        """Tell the verdict of a training that an exception has ended: at the process's end, or before another."""
        if self._attached is not None:
            self._finish(self._attached.session.steps)

    def _limits(self, limit: Bytes) -> dict[str, int]:
        """The limits that a budget means for this process.

        Raises:
            ConfigError: It is spent already.
        """
        terms = Terms(machine=read_machine(device=self._memory.device()), max_memory=limit)
        return {
            "limit": int(terms.budgets(self._memory.in_use()).host.limit),
            "beside_device": int(replace(terms, max_memory=None).budgets().host.limit),
            "device_limit": int(limit),
        }

    def _keep_budget(self, limits: dict[str, int]) -> None:
        """Keep a budget in this process; nobody would start another one."""
        session = observing_session()
        place = NOWHERE if session is None else session.channel.path
        self._actions = actions_file(place)
        context = RestartContext(number=0, channel_path=str(place), in_memory="", out="", settings=limits)
        self._recycling = BudgetCallback(context, resumable=False)

    def _finish(self, step: int) -> None:
        """End observing; keep, print and write what was found."""
        attached, self._attached = self._attached, None
        atexit.unregister(self._finish_late)
        actions = self._done_for_the_budget()
        if attached is not None:
            self.summary = attached.end()
        elif observing_session() is not None:
            self.summary = {"schema": SCHEMA, "steps": step, "observed_by": "holdwater run", "actions": []}
        if self.summary is None:
            return
        actions += [] if self._clean_up is None else self._clean_up.as_rows()
        self.summary["actions"] = sorted([*self.summary["actions"], *actions], key=lambda row: row["step"])
        if "verdict" in self.summary:
            self._tell(self.summary)
        if self._json is not None:
            rank = self._ranks.rank
            file = Path(f"{self._json}.rank-{rank}" if rank else self._json)
            try:
                file.write_text(json_text.dumps(self.summary, indent=1) + "\n", encoding="utf-8")
            except not_the_scripts(OSError) as error:
                write_line(f"holdwater: the judgement cannot be written to {file}: {error}")

    def _done_for_the_budget(self) -> list[dict[str, Any]]:
        """What was released to keep the budget, as actions of the JSON verdict."""
        if self._actions is None or self._restart is not None:
            return []
        with suppressed(OSError, ValueError):
            return [json_text.loads(line) for line in self._actions.read_text(encoding="utf-8").splitlines()]
        return []

    def _tell(self, summary: dict[str, Any]) -> None:
        """Print the verdict, and what is to be done about it."""
        who = f"rank {self._ranks.rank}: " if self._ranks.is_needed else ""
        lines = [f"{who}{summary['verdict']} after {summary['steps']:,} steps"]
        found = summary["findings"]
        for row, words in zip(found, explanations_in_words(found), strict=True):
            if row["verdict"] in GRAVE:
                lines += [f"  {row['component']}: {row['verdict']}: {row['advice']}"]
                lines += [f"    {line}" for line in words]
        for line in lines:
            write_line(f"holdwater: {line}")
