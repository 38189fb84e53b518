"""Turn what a training process recorded in a window into explanations, in the watcher.

The recording of allocations is read by a separate process, since that takes seconds and memory which neither the
training process nor the watcher should spend. An explanation outlives the training process: all that it needs is
in the folder, or has been read.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdwater.attribution.chain import made_in_words
from holdwater.attribution.explanation import explain
from holdwater.attribution.site import LEAST_EXPLAINED, Explanation, Growing
from holdwater.attribution.started import starting_site
from holdwater.detectors.evidence import WorkerGain
from holdwater.detectors.verdict import Finding, Verdict
from holdwater.probes.children import FORK, Child
from holdwater.units import format_size

EXPLAINED = frozenset(("leak", "fragmentation", "warming", "bounded"))
"""Verdicts whose findings are explained."""
MOST_KEPT = 3
"""Earlier windows that are kept: the last one may have been closed by the end of the script with nothing seen."""
LONGEST_READING = 60.0
"""Seconds after which reading a recording is given up."""

READ_ONLY = 0.4
"""The share for which an explanation counts that was only read in the source: another window is worth its cost."""
MANY = 4
"""Moments at which children were started that still live: fewer are those that a program needs."""
Seen = tuple[dict[str, Any], dict[str, Any] | None]
"""What was seen in a window, and what was recorded there; None if nothing was."""


class Explainer:
    """The results of the newest window, and the explanations made from them."""

    def __init__(
        self,
        folder: Path,
        growers: Callable[[], list[Child]] = list,
        late: Callable[[], list[Child]] = list,
    ) -> None:
        """Start empty.

        Args:
            folder: Where the process leaves its recordings.
            growers: Returns the children of the process that have grown most.
            late: Returns its children that were started later than the first ones and still live.
        """
        self.seen: dict[str, Any] | None = None
        """What the process saw in its last window."""
        self.recorded: dict[str, Any] | None = None
        """Its allocations; None if they were not recorded, or are still being read."""
        self.workers: list[dict[str, Any]] = []
        """What loader workers found in themselves, the newest first."""
        self._folder, self._growers, self._late = folder, growers, late
        self._reading: subprocess.Popen[str] | None = None
        self._reads: dict[str, Any] | None = None
        self._made: dict[tuple[str, str, float], Explanation] = {}
        self._earlier: list[Seen] = []
        """What was seen and recorded in earlier windows, the newest first."""

    def take(self, seen: dict[str, Any]) -> None:
        """Accept the results of a window, and begin to read its recording."""
        if "to_step" not in seen:
            return  # it was closed before it had seen anything
        allocations = seen.get("allocations")
        if self.seen is not None and allocations is None:
            return  # a recording says more than two counts
        if allocations is None:
            self._use(seen, None)
            return
        by = ["--every", str(seen.get("every_steps") or 0)] + (["--by-events"] if seen.get("by_events") else [])
        self.close()
        file = str(self._folder / allocations)
        command = [sys.executable, "-P", "-m", "holdwater.attribution.recorded", file, *by]
        self._reading = subprocess.Popen(  # noqa: S603 - this interpreter, and a file of our own
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self._reads = seen

    def poll(self, *, wait: float | None = None) -> bool:
        """Accept a recording that has been read; return whether there is something new.

        Args:
            wait: Seconds to wait for it, since the run has ended; None does not wait.
        """
        for path in sorted(files_of(self._folder, "worker"), key=lambda path: path.stat().st_mtime):
            seen = json.loads(path.read_text(encoding="utf-8"))
            path.unlink()
            if seen["gains"] or not self.workers:
                self.workers = [seen, *self.workers][: MOST_KEPT + 1]
                self._made.clear()
        reading, seen = self._reading, self._reads
        if reading is None or seen is None or (wait is None and reading.poll() is None):
            return False
        self._reading = None
        try:
            text, _ = reading.communicate(timeout=LONGEST_READING if wait is None else wait)
            recorded = json.loads(text)
        except (subprocess.TimeoutExpired, ValueError):
            reading.kill()
            reading.communicate()
            recorded = {"error": "it was not read in time"}
        if "error" in recorded:
            seen["missing"].append(f"the recording of allocations is lost: {recorded.pop('error')}")
        with contextlib.suppress(OSError):
            (self._folder / seen["allocations"]).unlink()
        self._use(seen, recorded)
        return True

    def close(self) -> None:
        """End the process that reads a recording, if there is one: nobody waits for it any more."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.kill()
            reading.communicate()

    def explain(self, finding: Finding) -> Explanation | None:
        """The explanation of a finding's growth; None if there was no window, or nothing grows."""
        rate = finding.rate.bytes_per_step if finding.rate is not None else 0.0
        inside = self.workers if finding.component == "host.children" else []
        if finding.verdict not in EXPLAINED or rate <= 0:
            return None
        if finding.verdict == "bounded" and finding.forecast is None:
            return None  # it has stopped: what still grows a little is something else
        windows: list[Seen] = [(seen, None) for seen in inside] if inside else self._windows
        if not windows:
            return self._by_children(finding, None)
        key = (finding.component, finding.follows, rate)
        if key not in self._made:
            self._made = {old: made for old, made in self._made.items() if old[0] != finding.component}
            made = _best(windows, lambda seen: self._growing(finding, seen, inside=bool(inside)))
            self._made[key] = self._by_children(finding, made) or made
        return self._made[key]

    @property
    def worker_gains(self) -> tuple[WorkerGain, ...]:
        """What loader workers gained in their datasets, the newest first."""
        counted = [seen for seen in self.workers if "in_dataset" in seen and seen["pid"] is None]
        return tuple(WorkerGain(seen["to_step"] - seen["from_step"], seen["in_dataset"]) for seen in counted)

    @property
    def is_reading(self) -> bool:
        """Whether a recording is still being read."""
        return self._reading is not None

    @property
    def _windows(self) -> list[Seen]:
        """The last window, and those before, the newest first."""
        return [] if self.seen is None else [(self.seen, self.recorded), *self._earlier]

    def _by_children(self, finding: Finding, made: Explanation | None) -> Explanation | None:
        """Name the children that grow or become more, if children grow; None if none is known."""
        of_children = finding.component == "host.children"
        grown, late = (self._growers(), self._late()) if of_children else ([], [])
        moments = len({one.reading for one in late})  # the processes of a pool are started together
        if moments >= MANY and sum(one.now for one in late) > 2 * sum(one.grown for one in grown):
            return self._by_number(finding, made, late)
        if not grown:
            return None
        reports = [*reversed(self.workers), self.seen or {}]
        names = {pid: name for seen in reports for pid, name in seen.get("processes", {}).items()}
        chain = tuple(_grower(child, names.get(str(child.pid))) for child in grown)
        made = made or Explanation(int(finding.detected_step), (), 0.0, answer="not explained yet")
        first, last = (made.chain, chain) if self.workers else (chain, made.chain)
        return replace(made, chain=(*first, *last))

    def _by_number(self, finding: Finding, made: Explanation | None, late: list[Child]) -> Explanation:
        """Children become more: where the program starts them, and what they take."""
        made = made or Explanation(int(finding.detected_step), (), 0.0, answer="not explained yet")
        size = sum(one.now for one in late)
        said = f"{len(late)} processes that were started during the run still live and take {format_size(size)}"
        chain = (f"{said}; the newest is {late[-1].kind}",)
        rate = 0.0 if finding.rate is None else finding.rate.bytes_per_step
        site = None if self.seen is None else starting_site(self.seen, rate)
        if site is None or made.sites:
            return replace(made, chain=(*made.chain, *chain))
        site = replace(site, share=1.0)
        return replace(made, sites=(site,), explained=1.0, chain=(made_in_words(site), *chain), answer="explained")

    def _growing(self, finding: Finding, seen: dict[str, Any], *, inside: bool) -> Growing:
        """The growth to explain; what a child counted in itself is compared with its growth, as objects."""
        rate = finding.rate
        return Growing(
            component="host.python" if inside else finding.component,
            rate=0.0 if rate is None else rate.bytes_per_step * self._part_of(seen.get("pid")),
            follows=finding.follows,
            every_steps=None if rate is None else rate.every_steps,
            per_event=None if rate is None else rate.per_event,
        )

    def _part_of(self, pid: int | None) -> float:
        """One child's part of the growth of all children; 1 if unknown."""
        grown = {child.pid: child.grown for child in self._growers()} if pid is not None else {}
        return grown[pid] / sum(grown.values()) if pid in grown else 1.0

    def explained(self, verdict: Verdict) -> float:
        """The share of the most severe finding's growth that is explained; less if none of it was seen to run."""
        for finding in verdict.findings:
            made = self.explain(finding)
            if made is not None:
                read = bool(made.sites) and not any(site.ran for site in made.sites)
                return min(made.explained, READ_ONLY) if read else made.explained
        return 0.0

    def _use(self, seen: dict[str, Any], recorded: dict[str, Any] | None) -> None:
        """Use these results from now on."""
        self._earlier = self._windows[:MOST_KEPT]
        self.seen, self.recorded = seen, recorded
        self._made.clear()


def files_of(folder: Path, kind: str) -> list[Path]:
    """The files that a process has left for its watcher, which looks for them many times a second.

    Args:
        folder: Where it leaves them; without it there are none.
        kind: How their names begin.
    """
    try:
        names = os.listdir(folder)  # noqa: PTH208 - a tenth of the cost of a pattern
    except OSError:
        return []
    return [folder / name for name in names if name.startswith(f"{kind}-") and name.endswith(".json")]


def _best(windows: list[Seen], growing: Callable[[dict[str, Any]], Growing]) -> Explanation:
    """The last window's explanation; if it explains too little, or names no holder, a better one of an earlier."""
    (seen, recorded), *earlier = windows
    made = explain(seen, growing(seen), recorded=recorded)
    for before, recorded in earlier:
        if _merit(made) >= (True, True):
            break
        made = max((made, explain(before, growing(before), recorded=recorded)), key=_merit)
    return made


def _merit(made: Explanation) -> tuple[bool, bool, float]:
    """The sort key: it explains enough, and says who holds it; of those that do not explain enough, how much."""
    enough = made.explained >= LEAST_EXPLAINED
    holds = any(site.role == "held" for site in made.sites)
    return enough, enough and holds, 0.0 if enough else made.explained


def _grower(child: Child, name: str | None) -> str:
    """A child that has grown, as text; by its multiprocessing name, if it has one."""
    kind = child.kind
    if name is not None and kind == FORK:
        kind = (
            f"the multiprocessing manager `{name}`"
            if "Manager" in name
            else f"the process `{name}` of multiprocessing"
        )
    return f"{kind} (process {child.pid}) has grown by {format_size(child.grown)} to {format_size(child.now)}"
