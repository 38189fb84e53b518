"""Turns what a training process has seen in a window into explanations, beside the run.

The recording of its allocations is read by a process of its own: that takes seconds and memory, and neither the
training nor the watching is to feel it. An explanation outlives the training process: all that it needs lies in
the folder, or has been read.
"""

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from holdwater.attribution.explanation import Explanation, explain
from holdwater.detectors.verdict import Finding, Verdict

EXPLAINED = frozenset(("leak", "fragmentation", "warming", "bounded"))
"""Verdicts whose findings are explained."""
LONGEST_READING = 60.0
"""Seconds after which a recording is not waited for at the end of a run."""


class Explainer:
    """The newest thing that the process has seen, and what it explains."""

    def __init__(self, folder: Path) -> None:
        """Begin with nothing.

        Args:
            folder: Where the process leaves its recordings.
        """
        self.seen: dict[str, Any] | None = None
        """What the process saw in its last window."""
        self.recorded: dict[str, Any] | None = None
        """What its allocations were; None where they were not recorded, or are still being read."""
        self.workers: dict[str, Any] | None = None
        """What a loader's worker saw in itself."""
        self._folder = folder
        self._reading: subprocess.Popen[str] | None = None
        self._reads: dict[str, Any] | None = None
        self._made: dict[tuple[str, str, float], Explanation] = {}

    def take(self, seen: dict[str, Any]) -> None:
        """Take in what the process has seen, and begin to read its recording."""
        allocations = seen.get("allocations")
        if self.seen is not None and allocations is None:
            return  # what was recorded says more than two counts
        if allocations is None:
            self._use(seen, None)
            return
        command = [sys.executable, "-m", "holdwater.attribution.capture", str(self._folder / allocations)]
        self._reading = subprocess.Popen(  # noqa: S603 - this interpreter, and a file of our own
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._reads = seen

    def poll(self, *, wait: bool = False) -> bool:
        """Take in a recording that has been read; return whether there is something new.

        Args:
            wait: The run has ended: wait until it has been read.
        """
        for path in self._folder.glob("worker-*.json"):
            self.workers = json.loads(path.read_text(encoding="utf-8"))
            path.unlink()
            self._made.clear()
        reading, seen = self._reading, self._reads
        if reading is None or seen is None or (not wait and reading.poll() is None):
            return False
        self._reading = None
        try:
            text, _ = reading.communicate(timeout=LONGEST_READING)
            recorded = json.loads(text)
        except (subprocess.TimeoutExpired, ValueError):
            reading.kill()
            reading.communicate()
            recorded = {"error": "it could not be read"}
        if "error" in recorded:
            seen["missing"].append(f"the recording of allocations is lost: {recorded.pop('error')}")
        with contextlib.suppress(OSError):
            (self._folder / seen["allocations"]).unlink()
        self._use(seen, recorded)
        return True

    def explain(self, finding: Finding) -> Explanation | None:
        """What is known of a finding's growth; None where nothing was looked into, or nothing grows."""
        rate = finding.rate.bytes_per_step if finding.rate is not None else 0.0
        inside = self.workers if finding.component == "host.children" else None
        seen = self.seen if inside is None else inside
        if seen is None or finding.verdict not in EXPLAINED or rate <= 0:
            return None
        if finding.verdict == "bounded" and finding.forecast is None:
            return None  # it has stopped: what grows a little still is not what has grown
        key = (finding.component, finding.follows, rate)
        if key not in self._made:
            self._made = {old: made for old, made in self._made.items() if old[0] != finding.component}
            component = finding.component if inside is None else "host.python"  # weighed in the worker itself
            recorded = self.recorded if inside is None else None
            self._made[key] = explain(seen, component, rate, follows=finding.follows, recorded=recorded)
        return self._made[key]

    def explained(self, verdict: Verdict) -> float:
        """The share of the gravest finding's growth that is explained."""
        for finding in verdict.findings:
            made = self.explain(finding)
            if made is not None:
                return made.explained
        return 0.0

    def _use(self, seen: dict[str, Any], recorded: dict[str, Any] | None) -> None:
        """Explain with this from now on."""
        self.seen, self.recorded = seen, recorded
        self._made.clear()
