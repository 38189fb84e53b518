"""Judge a run so far: every component of its memory separately, and the most severe finding for the whole."""

from dataclasses import dataclass, field, replace

import numpy as np

from holdwater.budget import Budgets
from holdwater.detectors import accuse
from holdwater.detectors.bounds import after_visits, by_generation, known_end
from holdwater.detectors.clocks import Following, find_clock
from holdwater.detectors.companions import without_companions
from holdwater.detectors.evidence import NO_EVIDENCE, Evidence
from holdwater.detectors.forecast import forecast_limit, level, seconds_per_step
from holdwater.detectors.growth import DEFAULT, Growth, GrowthConfig, judge_growth
from holdwater.detectors.judgement import Judgement, is_rare_in_healthy_runs
from holdwater.detectors.messages import advise
from holdwater.detectors.series import Series, children, device_cache, private_series, retained, shared, take
from holdwater.detectors.staircase import climb_at_events, rise_evenly
from holdwater.detectors.verdict import COUNTED, Component, Finding, Forecast, Plateau, Verdict, VerdictKind
from holdwater.timeline.buckets import Buckets, Floats
from holdwater.units import Step

LEAST_OF: dict[Component, float] = {"process.handles": 24.0, "device.buffers": 1000.0}
"""How many open files and threads, or buffers, must have been added before their growth counts."""
GARBAGE_PATIENCE = 5000
"""Steps for which garbage may wait for a collector before that is called a leak, unless the run has ended."""
KEPT = frozenset(("host.retained", "device.reserved"))
"""Free memory that an allocator keeps: its growth is fragmentation, not a leak."""
MINOR = 0.3
"""A second private part is reported only if it grows by this share of the first."""
COMPANION = 0.1
"""Growth below this part of a warming growth is attributed to that one."""
SHORT, EARLY = 2000, 0.25
"""In a run of fewer steps, growth smaller than a leak's least is reported as warming."""
STAIRS, FEW_STAIRS = 6, 5
"""Levels between events at which memory grows, including the first: for a leak, and for *warming*."""
MOST_OF = 0.5
"""A part with this share of a growth is taken as what grows: data files (not code), pinned pages, a component."""
SMALL_CACHE = 64 << 20
"""Freed buffers that MLX may keep: without a device it keeps 32 MiB at most (measured, MLX 0.32)."""
CODE = 500e6
"""Bytes of libraries that a process may read in page by page while it is young."""


@dataclass(frozen=True, slots=True)
class JudgeConfig:
    """The settings of the judgement."""

    growth: GrowthConfig = field(default=DEFAULT)
    leak_threshold: float = 1e6
    """Bytes per step above which remedies may act on a leak; below it, it is only reported."""
    seconds_per_step: float | None = None
    """The length of a step if it is a tick of the clock: rates are then per second."""


def judge(
    buckets: Buckets,
    budgets: Budgets,
    *,
    config: JudgeConfig,
    evidence: Evidence = NO_EVIDENCE,
    final: bool = False,
) -> Judgement:
    """Judge the history of a run.

    Args:
        buckets: The history.
        budgets: The limits of forecasts, by pool.
        config: The settings.
        evidence: What is known beyond the curves.
        final: The run has ended.
    """
    if len(buckets) == 0:
        return Judgement(Verdict("unknown", Step(0), ()), suspicious=False, accusing=False)
    step = Step(int(buckets.last_step[-1]))
    case = _Case(buckets, budgets, config, evidence, step, final)
    others = case.judge_others()
    findings = [*case.judge_private(), *others]
    whole = case.judge_whole(findings)
    findings = [whole, *findings] if whole is not None else findings
    in_heap = any(held.device_in_heap for held in evidence.holdings)
    findings = without_companions(findings, device_in_heap=in_heap)
    verdict = Verdict.of(tuple(findings), step)
    return Judgement(
        verdict, case.suspicious, case.accusing, case.children, case.regions, case.untested, case.suspect
    )


@dataclass(slots=True)
class _Case:
    """One judgement: what its series share."""

    buckets: Buckets
    budgets: Budgets
    config: JudgeConfig
    evidence: Evidence
    step: Step
    final: bool
    suspicious: bool = False
    accusing: bool = False
    children: bool = False
    regions: bool = False
    untested: bool = False
    suspect: Finding | None = None
    undecided: float = 0.0
    """Growth of the largest warming part of private memory, in bytes."""

    def judge_private(self) -> list[Finding]:
        """Judge this process's private memory; only growth is a finding."""
        grown: list[tuple[float, Finding]] = []
        for series in private_series(self.buckets):
            if series.name == "outside" and grown:
                break  # heap that grows into trimmed pages looks like growth outside it
            found = self._private(series)
            if found is not None:
                grown.append(found)
        grown.sort(key=lambda pair: -pair[0])
        findings: list[Finding] = []
        for rate, finding in grown:
            since = self.step - int(finding.onset_step or 0)
            if finding.verdict == "leak" and rate * since < COMPANION * self.undecided:
                continue
            new = all(finding.component != other.component for other in findings)
            if new and rate >= MINOR * grown[0][0]:
                findings.append(finding)
        return findings

    def _private(self, series: Series) -> tuple[float, Finding] | None:
        """The finding of one series of private memory, with its rate; None if nothing grows."""
        growth, following = self._grow(series)
        self._suspect(series.component, growth, following)
        if growth.kind == "warming":
            self.undecided = max(self.undecided, series.rise(0))
        if growth.rate is None:
            return None
        if growth.kind == "leak":
            self.accusing = True
            return growth.rate.bytes_per_step, self._accuse(series, growth, following)
        if growth.suspicious:
            ending = self._find_end(self._component(series, growth), growth, series.name)
            if ending is not None:
                return growth.rate.bytes_per_step, ending
        early = self._grows_early(series)
        if early is None or early.rate is None:
            return None
        self.suspicious |= self.final  # a count shows what it is
        component, following = self._component(series, early), find_clock(self.buckets, series.every, 0)
        return early.rate.bytes_per_step, self._finding("warming", component, early, following)

    def _suspect(self, component: Component, growth: Growth, following: Following | None) -> None:
        """Have objects counted for a suspicious growth, although it is no finding yet."""
        if not growth.suspicious:
            return
        self.suspicious = True
        if self.suspect is None and growth.rate is not None and growth.rate.bytes_per_step > 0:
            self.suspect = self._finding("warming", component, growth, following)

    def judge_others(self) -> list[Finding]:
        """Judge the other components: free heap, files, shared memory, children, devices, handles."""
        findings: list[Finding] = []
        for series in self._other_series():
            least = LEAST_OF.get(series.component, self.config.growth.least_growth)
            growth, following = self._grow(series, least_growth=least)
            inside = series.component == "host.children" and not accuse.has_more_children(self.buckets)
            self.children |= inside and growth.suspicious
            if not inside and is_rare_in_healthy_runs(series.component, self.buckets, growth):
                self._suspect(series.component, growth, following)
            if growth.kind == "leak" and self._is_filling(series.component):
                findings.append(self._finding("warming", series.component, growth, following))
            elif growth.kind == "leak" and not (self._is_code(series.component, growth) or self._is_small(series)):
                self.suspicious |= not inside
                kind: VerdictKind = "leak"
                if series.component in KEPT and not self._is_kept_on_purpose(series, growth):
                    kind = "fragmentation"
                ends = series.component in {"host.file", "host.children"}
                ending = by_generation(self.buckets, self.evidence, series.component, growth)
                ending = self._find_end(series.component, growth, series.name) if ends else ending
                component: Component = "host.pinned" if self._is_pinned(series, growth) else series.component
                if all(component != one.component for one in findings):
                    findings.append(ending or self._finding(kind, component, growth, following))
            elif series.component in {"device.active", "host.children"} and growth.kind != "unknown":
                findings.append(self._finding(growth.kind, series.component, growth, following))
        return findings

    def judge_whole(self, others: list[Finding]) -> Finding | None:
        """Judge resident memory; growth that one of its parts accounts for is not reported twice."""
        series = take(self.buckets, "resident", "host.native")
        growth, following = self._grow(series)
        if growth.kind == "leak" and self._is_code(self._largest_part(growth), growth):
            growth = replace(growth, kind="unknown")
        elif growth.kind == "leak" and (
            self._is_filling(self._largest_part(growth)) or self.undecided >= MOST_OF * max(series.rise(0), 1.0)
        ):
            growth = replace(growth, kind="warming")  # that part is the finding
        named = [finding for finding in others if finding.component.startswith("host.")]
        accused = any(finding.verdict in {"leak", "fragmentation", "warming", "cyclic"} for finding in named)
        ending = any(isinstance(finding.forecast, Plateau) for finding in named)
        if growth.kind == "leak" and not accused and not ending:
            self.suspicious = self.accusing = True
            return self._accuse(series, growth, following)
        if accused or ending:
            return None
        heap = take(self.buckets, "heap_in_use", "host.native")
        kind: VerdictKind = "bounded" if growth.kind == "leak" else growth.kind
        if kind in {"flat", "bounded"} and len(heap) and self._grow(heap)[0].kind == "cyclic":
            kind = "cyclic"
        following = following if kind == "warming" else None
        component = self._largest_part(growth)
        ended = after_visits(self.buckets, self.evidence, component, growth) if kind == "bounded" else None
        return ended or self._finding(kind, component, growth, following)

    def _is_kept_on_purpose(self, series: Series, growth: Growth) -> bool:
        """Whether free memory that grows is kept for live graphs, or in a cache without a useful bound."""
        of_device = series.component == "device.reserved"
        of_graphs = accuse.is_of_graphs(self.evidence, growth)
        return of_graphs or (of_device and accuse.is_of_buffer_cache(self.evidence, growth))

    def _is_small(self, series: Series) -> bool:
        """Whether it is a cache of MLX that is not larger than its limit where there is no device."""
        of_mlx = any(held.buffer_cache is not None for held in self.evidence.holdings)
        return of_mlx and series.component == "device.reserved" and float(series.means.max()) < SMALL_CACHE

    @property
    def _is_young(self) -> bool:
        """Whether the process has taken few steps."""
        return self.step - int(self.buckets.first_step[0]) < self.config.growth.least_steps

    def _is_filling(self, component: Component) -> bool:
        """Whether an allocator keeps more in a young process: it does until what is largest has been met."""
        return component in KEPT and self._is_young

    def _is_code(self, component: Component, growth: Growth) -> bool:
        """Whether the growth may be code that is paged in at its first call, since the process is young."""
        if component != "host.file" or not self._is_young or growth.risen >= CODE:
            return False
        self.regions = True
        touched = self.evidence.touched_since("file", 0 if growth.onset is None else int(growth.onset))
        return touched is None or touched.data < MOST_OF * (touched.inside + touched.fresh)

    def _grow(self, series: Series, *, least_growth: float | None = None) -> tuple[Growth, Following | None]:
        """Judge one series by its curve, and find the clock of its growth."""
        config = self.config.growth
        if least_growth is not None:
            config = replace(config, least_growth=least_growth)
        growth = judge_growth(series.steps, series.floors, series.means, final=self.final, config=config)
        if growth.kind in {"warming", "bounded", "unknown", "flat"}:
            staircase = self._climb(series, config, STAIRS)
            if staircase is not None:
                return staircase
        if growth.kind != "leak" and not growth.suspicious:
            return growth, None
        following = find_clock(self.buckets, series.every, int(growth.onset or 0))
        return growth, following

    def _grows_early(self, series: Series) -> Growth | None:
        """Growth in a short run that is certain, but too small, or of too few events, to be called a leak yet."""
        config = self.config.growth
        length = self.step - int(self.buckets.first_step[0])
        if not config.least_steps_at_end <= length < SHORT:
            return None
        config = replace(config, least_growth=EARLY * config.least_growth)
        growth = judge_growth(series.steps, series.floors, series.means, final=self.final, config=config)
        if growth.kind == "leak":
            return growth
        few = self._climb(series, config, FEW_STAIRS)
        return rise_evenly(series.steps, series.floors, config) if few is None else few[0]

    def _climb(self, series: Series, config: GrowthConfig, least: int) -> tuple[Growth, Following] | None:
        """Growth in equal stairs, each at an event: a leak although most steps add nothing."""
        if self.step - int(self.buckets.first_step[0]) < config.least_steps_at_end:
            return None
        return climb_at_events(self.buckets, series.steps, series.every, config, least=least)

    def _accuse(self, series: Series, growth: Growth, following: Following | None) -> Finding:
        """Classify a growth of private memory."""
        evidence = self.evidence
        component = self._component(series, growth)
        self.untested |= not accuse.is_tested(evidence, growth, self.step)
        if accuse.is_garbage(evidence, growth, self.step):
            return self._finding(self._kind_of_garbage(growth), component, growth, following, garbage=True)
        kind: VerdictKind = "fragmentation" if component in KEPT else "leak"
        ending = self._find_end(component, growth, series.name)
        return ending or self._finding(kind, component, growth, following)

    def _component(self, series: Series, growth: Growth) -> Component:
        """What a growing series is made of."""
        made_of = accuse.composition(self.evidence)
        if series.name == "resident":
            return self._largest_part(growth)
        if made_of is not None and series.name == "heap_in_use":
            return made_of.component
        if series.name == "outside" and self._blocks_explain(growth):
            return "host.python"
        return series.component

    def _find_end(self, component: Component, growth: Growth, series: str) -> Finding | None:
        """A growth whose end is known."""
        self.regions |= series in {"file", "outside", "resident"}
        return known_end(self.buckets, self.evidence, component, growth, series=series)

    def _kind_of_garbage(self, growth: Growth) -> VerdictKind:
        """Garbage is cyclic if the collector is on; if it is off, it is a leak unless the program collects."""
        if self.evidence.experiments[-1].collector_on:
            return "cyclic"
        return "leak" if self.final or self.step - int(growth.onset or 0) > GARBAGE_PATIENCE else "warming"

    def _finding(
        self,
        kind: VerdictKind,
        component: Component,
        growth: Growth,
        following: Following | None,
        *,
        garbage: bool = False,
    ) -> Finding:
        """Make a finding of a judgement."""
        rate = growth.rate
        if rate is not None and following is not None and (following.clock != "step" or following.every_steps):
            rate = replace(rate, per_event=following.per_event, every_steps=following.every_steps)
        accused = kind in {"leak", "fragmentation"}
        return Finding(
            verdict=kind,
            component=component,
            detected_step=self.step,
            message=advise(
                kind,
                component,
                growth,
                following=following,
                garbage=garbage,
                threshold=self.config.leak_threshold,
                seconds_per_step=self.config.seconds_per_step,
            ),
            rate=rate,
            follows=following.clock if following is not None else "step" if accused else "unknown",
            onset_step=growth.onset if accused else None,
            forecast=self._forecast(component, growth) if accused else None,
            pattern="garbage-not-collected" if garbage and kind == "leak" else None,
        )

    def _forecast(self, component: Component, growth: Growth) -> Forecast | None:
        """When the growth meets the limit of its own pool; handles have none."""
        limit: int | None = int(self.budgets.of(component).limit)
        if component in COUNTED:
            limit = self.budgets.buffers if component == "device.buffers" else None
        held = level(self.buckets, component, self.budgets)
        return None if limit is None else forecast_limit(growth, held, limit, seconds_per_step(self.buckets))

    def _largest_part(self, growth: Growth) -> Component:
        """The part of resident memory that rose most in the later half of the growth, unless it stopped."""
        since = 0 if growth.onset is None else (int(growth.onset) + self.step) // 2
        candidates = [*private_series(self.buckets), *self._other_series()]
        inside = [part for part in candidates if part.component in _RESIDENT_PARTS and len(part)]
        rises = sorted(((part.rise(since), part.component) for part in inside), reverse=True)
        whole = take(self.buckets, "resident", "host.native").rise(since)
        component = rises[0][1] if rises and rises[0][0] >= 0.3 * whole > 0 else "host.native"
        made_of = accuse.composition(self.evidence)
        return made_of.component if component == "host.native" and made_of is not None else component

    def _blocks_explain(self, growth: Growth) -> bool:
        """Whether Python's blocks have multiplied along with the growth."""
        blocks: Floats = self.buckets.lows("python_blocks")
        seen = blocks[~np.isnan(blocks)]
        if len(seen) < 2 or growth.rate is None:
            return False
        steps = float(self.buckets.last_step[-1] - self.buckets.first_step[0])
        return float(seen[-1] - seen[0]) * 32 >= 0.3 * growth.rate.bytes_per_step * steps

    def _is_pinned(self, series: Series, growth: Growth) -> bool:
        """Whether shared memory that grows is pinned for a device: the kernel counts such pages as shared."""
        if series.component != "host.shared" or growth.rate is None or not self.buckets.seen("pinned"):
            return False
        onset = 0 if growth.onset is None else int(growth.onset)
        pinned = take(self.buckets, "pinned", "host.pinned").rise(onset)
        return pinned >= MOST_OF * growth.rate.bytes_per_step * (self.step - onset) > 0

    def _other_series(self) -> list[Series]:
        """The series other than private memory that were read."""
        special = (retained, shared, device_cache, children)
        found = [read(self.buckets) for read in special]
        simple = [take(self.buckets, name, component) for name, component in _OTHERS if self.buckets.seen(name)]
        return [series for series in found if series is not None] + simple


_RESIDENT_PARTS = {"host.native", "host.python", "host.retained", "host.file", "host.shared", "host.tensors"}
_OTHERS: tuple[tuple[str, Component], ...] = (
    ("file", "host.file"),
    ("pinned", "host.pinned"),
    ("device_allocated", "device.active"),
    ("device_other", "device.other"),
    ("device_buffers", "device.buffers"),
    ("open_files", "process.handles"),
    ("threads", "process.handles"),
)
