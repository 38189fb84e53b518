"""Say why a training process was killed: what is read of it from outside, as for a script that is observed."""

from pathlib import Path

from holdwater.detectors.ending import EndFacts, explain_end
from holdwater.errors import StoreError
from holdwater.observe.last_reading import LastReading
from holdwater.observe.observed_run import GROWING
from holdwater.probes.outside import Outside
from holdwater.process.spawn import ForkedProcess
from holdwater.store.history import read_history
from holdwater.timeline.timeline import Timeline


class WatchedProcess:
    """A training process, whose memory is read until it ends."""

    def __init__(self, process: ForkedProcess, out: Path) -> None:
        """Begin to read.

        Args:
            process: It has just been started.
            out: Of the run, where it stores its judgements.
        """
        self._process, self._out = process, out
        self._outside = Outside(process.pid, may_have_ended=True)
        self._last = LastReading(self._outside)

    def look(self) -> None:
        """Read its memory."""
        if self._outside.read() is not None:
            self._last.see()

    def why_killed(self, step: int) -> str:
        """Why it has ended, in one paragraph; empty unless a signal has ended it: else it has said so itself.

        Args:
            step: Steps that it counted.
        """
        self._last.end()
        status = self._process.exit_status or 0
        if status >= 0:
            return ""
        findings = self._findings()
        found = explain_end(EndFacts(
            status=status, step=step, findings=findings or (), judged=findings is not None,
            going_on="holdwater train --resume", **self._last.facts(Timeline().buckets()),
        ))  # fmt: skip
        return "" if found is None else found.text

    def _findings(self) -> tuple[tuple[str, str], ...] | None:
        """What grew, by its last judgement: component and words; None if it has not judged yet."""
        try:
            newest = read_history(self._out).sessions[-1]
        except (StoreError, IndexError):
            return None
        judged = newest.summary if newest.facts.get("pid") == self._process.pid else None
        if judged is None:
            return None
        rows = judged.get("findings", ())
        return tuple((row["component"], row["advice"]) for row in rows if row["verdict"] in GROWING)
