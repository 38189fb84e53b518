"""The questions that the watcher asks a process whose memory is suspicious, and the answers.

Questions are expensive for the process, so there are few: a count of its objects, an experiment (collect and trim)
before growth is called a leak, and a window in which the growth is explained.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from holdwater.attribution.site import LEAST_EXPLAINED
from holdwater.detectors.evidence import NO_EVIDENCE, Evidence
from holdwater.detectors.judgement import LOOKED_INTO, Judgement
from holdwater.detectors.verdict import Rate
from holdwater.observe.explainer import Explainer, files_of
from holdwater.probes.children import LOADER
from holdwater.probes.outside import Outside
from holdwater.process.channel import Channel

MOST_QUESTIONS = 12
"""Most questions to one process in a run."""
FEW_WINDOWS, MOST_WINDOWS = 3, 6
"""Most windows among them; the second number if a growth is a leak and not explained yet."""
AGAIN = 1.5
"""If nothing is explained yet, the next window opens when the run is this many times as long."""
LONGER, MOST_LONGER = 4, 2
"""Each window after one that explained nothing is this many times as long, at most this often."""
WELL_EXPLAINED = 0.5
"""An explanation of this share of the growth is sufficient."""
STILL_TRUE = 2
"""What a count has shown of a growth holds until the run is this many times as long."""
MOST_OF_WORKERS = 4
"""Most questions to a loader's workers."""
STEPS = 24
"""Steps of a window."""
SOON = 2.0
"""Seconds for which the watcher polls fast for an answer."""
ALLOWANCE = 1.2
"""Seconds of the process's work that counting may take in any run."""
ALLOWED_WINDOWS = 3.5
"""Seconds of work in counts and windows after which no other window opens; the last one may take 1.5 more."""
ALLOWED_SHARE = 0.01
"""In a long run counting may take this share of it."""
ACCUSED = frozenset(("leak", "fragmentation"))
IN_DOUBT = 1.0
"""Seconds that a window may cost, its count excluded, while the growth may still be healthy."""
GRAVE = ACCUSED | {"warming"}
"""Verdicts of growth for which a window is opened."""
CLOCKS = {
    "evaluation": "evaluations",
    "checkpoint": "checkpoints",
    "epoch": "epochs",
    "shape": "shapes",
    "sample": "samples_seen",
}
"""Clocks whose events a window waits for, by their names in the agent."""


class Questions:
    """The questions to one process, and its answers."""

    def __init__(self, channel: Channel, folder: Path, outside: Outside) -> None:
        """Start with no question asked.

        Args:
            channel: Notifies the process of a question.
            folder: Holds questions and answers.
            outside: Reads the process from outside.
        """
        self.evidence: Evidence = NO_EVIDENCE
        self.experiments: list[dict[str, Any]] = []
        """The experiments, as actions of the JSON verdict."""
        self.errors: list[str] = []
        """What the process could not answer."""
        self.explainer = Explainer(
            folder,
            lambda: outside.children.growers(),  # noqa: PLW0108 - evaluated at the call
            lambda: outside.children.late(),  # noqa: PLW0108 - the same
        )
        self.asked = 0
        self._channel, self._folder, self._outside = channel, folder, outside
        self._answered = self._asked_at = self._experiment_at = self._window_at = self._windows = 0
        self._put_at = 0.0
        self._workers_asked = self._workers_asked_at = 0
        self._owes_window = self._counted_last = False
        self._spanned = False
        """Whether the last window was to span two rises of rare growth."""
        self._answers: set[str] = set()

    @property
    def waiting(self) -> bool:
        """Whether a question has not been answered yet."""
        return max(self._channel.get("answered"), self._answered) < self.asked

    def is_testing(self, judgement: Judgement) -> bool:
        """Whether an experiment is still to show if a growth is a leak.

        Args:
            judgement: The newest.
        """
        may_ask = self.asked < MOST_QUESTIONS and self._channel.state in {"running", "ending"}
        return judgement.untested and (self.waiting or may_ask)

    @property
    def expecting(self) -> bool:
        """Whether an answer is expected soon: the next question may depend on it."""
        return self.waiting and time.perf_counter() - self._put_at < SOON

    def ask(self, judgement: Judgement, steps: int, *, final: bool) -> None:
        """Ask a question if its answer would improve a judgement and the process can be asked now.

        Args:
            judgement: The newest.
            steps: Steps that the process has counted.
            final: The script has ended, and waits.
        """
        if judgement.children and self._channel.state == "running":
            self._ask_workers(judgement, steps)
        if self.asked >= MOST_QUESTIONS or self.waiting or self._channel.state not in {"running", "ending"}:
            return
        final = final or self._channel.state == "ending"
        judgement = self._with_silent_children(judgement, steps)
        named = judgement.accusing or _names(judgement, GRAVE)
        unexplained = final and named and self.explainer.seen is None and not self._counted_last
        uncounted = final and named and not self._knows_enough(judgement, steps) and not self._counted_last
        if self._wants_experiment(judgement, steps, final=final):
            self._experiment_at = steps
            self._owes_window = self._windows == 0  # memory freed by an experiment may hide the growth for a while
            self._put(steps, "experiment", "")
        elif self.explainer.is_reading and not final:
            return  # the previous window may explain all of it
        elif not final and self._wants_window(judgement, steps):
            self._owes_window = False
            self._windows += 1
            self._window_at = steps
            request = _window(judgement, longer=self._windows - 1)
            self._spanned = "every_steps" in request or "clock" in request
            self._put(steps, "window", json.dumps(request))
        elif unexplained or uncounted or (judgement.suspicious and self._is_fresh(steps)):
            self._counted_last = final
            self._put(steps, "count", "")

    def _ask_workers(self, judgement: Judgement, steps: int) -> None:
        """Let a loader worker, or the child that has grown most, count what it holds: it delays no step."""
        due = steps >= AGAIN * self._workers_asked_at
        if due and self._workers_asked < MOST_OF_WORKERS and self._explained(judgement) < WELL_EXPLAINED:
            self._workers_asked += 1
            self._workers_asked_at = steps
            grown = self._outside.children.growers(1)
            self._channel.put("worker_wanted", grown[0].pid if grown and grown[0].kind != LOADER else 0)
            self._channel.put("workers_asked", self._workers_asked)

    def _with_silent_children(self, judgement: Judgement, steps: int) -> Judgement:
        """Whether children grow and none of them has answered: the training process may know more."""
        silent = not self.explainer.workers and steps > AGAIN * self._workers_asked_at
        return replace(judgement, suspicious=judgement.suspicious or (judgement.children and silent))

    def _explained(self, judgement: Judgement) -> float:
        """The share of the children's growth that is explained."""
        for finding in judgement.verdict.findings:
            if finding.component == "host.children":
                made = self.explainer.explain(finding)
                return 0.0 if made is None else made.explained
        return 0.0

    def _wants_experiment(self, judgement: Judgement, steps: int, *, final: bool) -> bool:
        """Whether to test what a collection frees: before a leak is reported, and at twice the growth's age."""
        if judgement.accusing:
            return judgement.untested and steps > self._experiment_at
        return final and judgement.suspicious and not self.evidence.experiments

    def _wants_window(self, judgement: Judgement, steps: int) -> bool:
        """Whether to open a window now."""
        wanted = judgement.suspicious or self._owes_window
        counts = (
            2 if self._channel.get("samples_total") else 1
        )  # first visits of samples may explain it: a count shows
        if not wanted or self._windows >= MOST_WINDOWS or len(self.evidence.holdings) < counts:
            return False
        if self._windows == 0 or self._spans_more(judgement):
            return True
        if not _names(judgement, GRAVE if judgement.accusing else ACCUSED):
            return False  # only one window for growth that may be healthy
        explained = self.explainer.explained(judgement.verdict)
        later, most = (AGAIN, MOST_WINDOWS) if explained < LEAST_EXPLAINED else (2, FEW_WINDOWS)
        enough = steps >= later * self._window_at and self._windows < most
        return explained < WELL_EXPLAINED and enough and self._is_affordable(ALLOWED_WINDOWS)

    def _spans_more(self, judgement: Judgement) -> bool:
        """Whether rounds are known that the only window was too short for, and few healthy runs grow so."""
        suspect = judgement.suspect
        rate = suspect.rate if suspect is not None and suspect.component in LOOKED_INTO else None
        if self._windows > 1 or self._spanned or rate is None or (rate.every_steps or 0) <= STEPS // 2:
            return False
        return self.explainer.explained(judgement.verdict) < WELL_EXPLAINED and self._is_affordable(
            ALLOWED_WINDOWS
        )

    def _is_fresh(self, steps: int) -> bool:
        """Whether another count is worth its cost."""
        first = len(self.evidence.holdings) < 2  # one count cannot be compared with anything
        return steps >= 2 * self._asked_at and (self._is_affordable() or first)

    def _is_affordable(self, least: float = ALLOWANCE) -> bool:
        """Whether the questions so far have cost little enough."""
        channel = self._channel
        allowed = max(least, ALLOWED_SHARE * channel.get_seconds("last_step_at"))
        return channel.get_seconds("attribution_work") < allowed

    def _put(self, steps: int, kind: str, text: str) -> None:
        """Send a question; without space for it, nothing is asked."""
        self._asked_at, self._put_at = steps, time.perf_counter()
        try:
            (self._folder / f"{kind}-{self.asked + 1}").write_text(text, encoding="utf-8")
        except OSError as error:
            self._note_error(f"the process could not be asked: {error}")
            return
        self.asked += 1
        self._channel.put("asked", self.asked)

    def _note_error(self, text: str) -> None:
        """Keep an error for the verdict, once."""
        if text not in self.errors:
            self.errors.append(text)

    def _knows_enough(self, judgement: Judgement, steps: int) -> bool:
        """Whether a count now would hardly say more: the growth is explained, and the last count is not old.

        Args:
            judgement: The newest.
            steps: Steps that the process has counted.
        """
        newest = self.evidence.holdings[-1].step if self.evidence.holdings else -1
        if newest == steps:
            return True
        explained = self.explainer.explained(judgement.verdict) >= WELL_EXPLAINED
        return explained and len(self.evidence.holdings) > 1 and steps <= STILL_TRUE * newest

    def take_answers(self) -> bool:
        """Read what the process has answered; return whether there is more evidence than before."""
        answered = self._channel.get("answered")
        fresh = sorted(
            (path for path in files_of(self._folder, "answer") if path.name not in self._answers),
            key=lambda path: int(path.stem.split("-")[1]),
        )
        for path in fresh:
            self._answers.add(path.name)
            answer = json.loads(path.read_text(encoding="utf-8"))
            self.evidence = self.evidence.with_answer(
                answer,
                samples_total=self._channel.get("samples_total"),
                library_pages=self._outside.library_pages() or self._library_pages(),
            )
            self._answered = max(self._answered, answer["number"])  # the file is written just before the counter
            if "error" in answer:
                self.errors.append(answer["error"])
            if "experiment" in answer:
                self._note_experiment(answer)
            if "explanation" in answer:
                self.explainer.take(answer["explanation"])
        counted = self._take_workers()
        if answered > self._answered:
            self._answered = answered
            self._note_error(f"the process could not write its answer into {self._folder}: is the disk full?")
        return counted or (bool(fresh) and len(self.evidence.holdings) > 1)

    def _take_workers(self) -> bool:
        """Read what is known of loader workers; return whether one of them has counted since."""
        before, gains = self.evidence.worker_gains, self.explainer.worker_gains
        self.evidence = self.evidence.with_workers(self._channel.get("worker_rows"), gains)
        return gains != before

    def _library_pages(self) -> float:
        """The answers that were read before the process ended."""
        return self.evidence.holdings[-1].library_pages if self.evidence.holdings else 0.0

    def _note_experiment(self, answer: Mapping[str, Any]) -> None:
        """Record an experiment as its two actions."""
        for action, freed in (("collect", "collected"), ("trim", "trimmed")):
            self.experiments.append({
                "step": answer["step"],
                "action": action,
                "reason": "before a leak is named: would it cure the growth?",
                "freed_bytes": int(answer["experiment"][freed]),
                "seconds": answer["seconds"] / 2,
            })


def _names(judgement: Judgement, kinds: frozenset[str]) -> bool:
    """Whether a finding has one of these verdicts."""
    return any(one.rate is not None and one.verdict in kinds for one in judgement.verdict.findings)


def _window(judgement: Judgement, *, longer: int = 0) -> dict[str, Any]:
    """The request for a window: what it records, and the clock of which it waits for two events.

    On the host allocations are recorded by other means than on a device, and each costs time.

    Args:
        judgement: The newest.
        longer: Earlier windows that explained too little.
    """
    wanted: dict[str, Any] = {} if _names(judgement, ACCUSED) else {"seconds": IN_DOUBT}
    rising = [finding for finding in judgement.verdict.findings if finding.rate is not None]
    grave = [finding for finding in rising if finding.verdict in GRAVE]
    grave = grave or ([judgement.suspect] if judgement.suspect is not None else [])
    if not grave:
        return wanted
    if len({finding.component.partition(".")[0] for finding in grave}) == 1:
        wanted["component"] = grave[0].component
    rate = grave[0].rate
    if grave[0].follows in CLOCKS:
        return wanted | {"clock": CLOCKS[grave[0].follows], "events": 2, "apart": _steps_per_event(rate)}
    every = rate.every_steps if rate is not None else None
    if every is not None:
        return wanted | {"every_steps": every}
    return wanted | ({"steps": STEPS * LONGER ** min(longer, MOST_LONGER)} if longer else {})


def _steps_per_event(rate: Rate | None) -> int:
    """The mean number of steps between two events that a growth follows; 0 if unknown."""
    if rate is None or rate.per_event is None or rate.bytes_per_step <= 0:
        return 0
    return round(rate.per_event / rate.bytes_per_step)
