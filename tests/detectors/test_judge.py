"""A whole run's judgement: words, forecast, the part that grew."""

from collections.abc import Callable

import numpy as np
import pytest

from holdwater.budget import Budget, Budgets
from holdwater.detectors.evidence import NO_EVIDENCE, Evidence, Holdings
from holdwater.detectors.forecast import level
from holdwater.detectors.growth import Growth
from holdwater.detectors.judge import JudgeConfig, _Case, judge
from holdwater.detectors.judgement import Judgement
from holdwater.detectors.verdict import Component, Finding, Forecast, Verdict
from holdwater.probes.mappings import Touched
from holdwater.probes.sample import DeviceMemory, Look, Sample
from holdwater.testing import make_sample
from holdwater.timeline.timeline import Timeline
from holdwater.units import Bytes, Step

BUDGETS = Budgets(Budget(Bytes(10**9), "given", ""))

BOTH = Budgets(BUDGETS.host, Budget(Bytes(5 * 10**9), "given", ""))


def judged(rate: float, *, heap_kept: bool = False, steps: int = 1000, budgets: Budgets = BUDGETS) -> Verdict:
    """The judgement of a run that grows from 300 MB on, with 0.1 s a step."""
    timeline = Timeline()
    for step in range(1, steps + 1):
        grown = int(rate * step)
        look = Look(
            heap_in_use=Bytes(200_000_000 + (0 if heap_kept else grown)),
            heap_kept=Bytes(1_000_000 + (grown if heap_kept else 0)),
            file=Bytes(50_000_000),
        )
        timeline.append(Sample(Step(step), 0.1 * step, Bytes(300_000_000 + grown), None, look))
    return judge(timeline.buckets(), budgets, config=JudgeConfig()).verdict


class TestJudge:
    """Judges every component, and forecasts."""

    def test_forecasts_when_the_budget_is_spent(self) -> None:
        """600 MB of room at 100 kB a step: 6,000 steps, 600 s."""
        finding = judged(1e5).findings[0]

        assert finding.verdict == "leak"
        assert isinstance(finding.forecast, Forecast)
        assert finding.forecast.steps == pytest.approx(6000, rel=0.01)
        assert finding.forecast.seconds == pytest.approx(600, rel=0.01)
        assert finding.forecast.steps_low <= finding.forecast.steps <= finding.forecast.steps_high

    def test_a_flat_run_has_no_forecast(self) -> None:
        """Nothing grows, so nothing is forecast."""
        verdict = judged(0)

        assert verdict.kind == "flat"
        assert verdict.findings[0].forecast is None

    @pytest.mark.parametrize(("kept", "component"), [(False, "host.native"), (True, "host.retained")])
    def test_names_the_part_that_grew(self, kept: bool, component: str) -> None:
        """Heap in use and heap kept by the allocator are different stories."""
        assert judged(1e5, heap_kept=kept).findings[0].component == component

    @pytest.mark.parametrize(("steps", "kind"), [(60, "warming"), (400, "fragmentation")])
    def test_free_memory_of_a_young_process_is_warming(self, steps: int, kind: str) -> None:
        """Threads that decode pictures keep more until the largest was met; over many steps it is fragmentation."""
        timeline = Timeline()
        for step in range(1, steps + 1):
            kept, used = 1_600_000 * step, 400_000_000
            look = Look(heap_in_use=Bytes(used), heap_kept=Bytes(kept), anonymous=Bytes(used + kept))
            timeline.append(Sample(Step(step), 0.2 * step, Bytes(used + kept), None, look))

        verdict = judge(timeline.buckets(), BUDGETS, config=JudgeConfig(), final=True).verdict

        assert verdict.kind == kind

    @pytest.mark.parametrize(("jump", "kind"), [(0, "leak"), (80_000_000, "flat")])
    def test_of_few_readings_a_jump_is_no_growth(self, jump: int, kind: str) -> None:
        """A heap that was read eight times and rises evenly; and one that rises by little, but once by much."""
        timeline = Timeline()
        for step in range(1, 201):
            heap = 100_000_000 + (20_000 * step + (jump if step > 150 else 0) if jump else 200_000 * step)
            look = Look(heap_in_use=Bytes(heap)) if step % 25 == 0 else None
            timeline.append(Sample(Step(step), 0.1 * step, Bytes(300_000_000), None, look))

        verdict = judge(timeline.buckets(), BUDGETS, config=JudgeConfig(), final=True).verdict

        assert verdict.kind == kind

    @pytest.mark.parametrize(("part", "steps", "rate", "kind"), [
        ("file", 20, 100_000, "unknown"), ("file", 400, 100_000, "leak"), ("heap_in_use", 20, 100_000, "leak"),
        ("file", 20, 40_000_000, "leak"),
    ])  # fmt: skip
    @pytest.mark.parametrize("first", [0, 1000])
    def test_a_young_run_reads_code_in(self, part: str, steps: int, rate: int, kind: str, first: int) -> None:
        """File pages of 20 steps of a process are its libraries'; more than these, and of the heap, is growth."""
        timeline = Timeline()
        for step in range(1, steps + 1):
            grown = rate * step
            look = Look(**{name: Bytes(50_000_000 + grown * (name == part)) for name in ("heap_in_use", "file")})
            timeline.append(Sample(Step(first + step), 0.1 * step, Bytes(300_000_000 + grown), None, look))

        verdict = judge(timeline.buckets(), BUDGETS, config=JudgeConfig(), final=True).verdict

        assert verdict.kind == kind

    @pytest.mark.parametrize(("data", "kind"), [(0, "unknown"), (1_900_000, "leak")])
    def test_files_that_a_young_run_maps_anew_are_no_code(self, data: int, kind: str) -> None:
        """2 MB of file pages in 20 steps: of libraries, or of shards that stay mapped."""
        timeline = Timeline()
        for step in range(1, 21):
            look = Look(heap_in_use=Bytes(50_000_000), file=Bytes(50_000_000 + 100_000 * step))
            timeline.append(Sample(Step(step), 0.1 * step, Bytes(300_000_000 + 100_000 * step), None, look))
        files = (Touched(since_step=1, inside=0, fresh=2_000_000, room=0, data=data),)

        judgement = judge(
            timeline.buckets(), BUDGETS, config=JudgeConfig(), evidence=Evidence(files=files), final=True
        )

        assert judgement.regions
        assert judgement.verdict.kind == kind

    @pytest.mark.parametrize(("rate", "word"), [(5e4, "below"), (2e6, "above")])
    def test_says_on_which_side_of_the_threshold_it_lies(self, rate: float, word: str) -> None:
        """The default threshold is 1 MB a step."""
        assert f"{word} the threshold of +1.00 MB/step" in judged(rate).findings[0].message

    def test_a_little_beside_a_growth_that_may_end_goes_with_it(self) -> None:
        """Objects of 40 MB have come in two stages, and the heap beside them is a straight line of 2 MB."""
        timeline = Timeline()
        for step in range(1, 601):
            risen = float(np.interp(step, (216, 325, 480, 540), (0, 10e6, 12e6, 38e6)))
            look = Look(heap_in_use=Bytes(200_000_000 + 3500 * step), python_blocks=int(1e6 + risen / 64))
            timeline.append(Sample(Step(step), 0.1 * step, Bytes(int(300e6 + risen + 3500 * step)), None, look))

        verdict = judge(timeline.buckets(), BUDGETS, config=JudgeConfig(), final=True).verdict

        assert verdict.kind in {"warming", "bounded"}

    def test_a_leak_beside_a_growth_that_has_ended_is_one(self) -> None:
        """A cache of 40 MB was full at step 250 of 3,000; a straight line of 3.5 kB a step has gone on."""
        timeline = Timeline()
        for step in range(1, 3001):
            risen = 40e6 * min(step / 250, 1.0)
            look = Look(heap_in_use=Bytes(200_000_000 + 3500 * step), python_blocks=int(1e6 + risen / 64))
            timeline.append(Sample(Step(step), 0.1 * step, Bytes(int(300e6 + risen + 3500 * step)), None, look))

        verdict = judge(timeline.buckets(), BUDGETS, config=JudgeConfig(), final=True).verdict

        assert (verdict.kind, verdict.findings[0].component) == ("leak", "host.native")

    def test_a_leak_of_a_process_that_has_shrunk_is_one(self) -> None:
        """It began with 900 MB, gave 700 of them back, and leaks 100 kB a step of which malloc knows nothing."""
        timeline = Timeline()
        for step in range(1, 3001):
            resident = 900_000_000 if step < 20 else 200_000_000 + 100_000 * step
            timeline.append(Sample(Step(step), 0.1 * step, Bytes(resident), None, Look()))

        verdict = judge(timeline.buckets(), BUDGETS, config=JudgeConfig(), final=True).verdict

        assert verdict.kind == "leak"

    @pytest.mark.parametrize(("last", "component"), [(700, "host.retained"), (2000, "host.native")])
    def test_a_part_that_has_stopped_is_none_of_a_growth(self, last: int, component: str) -> None:
        """The heap grew by 80 kB a step to step 700 or on, and what malloc keeps by 7 kB a step to the end."""
        timeline = Timeline()
        for step in range(1, 2001):
            heap, kept = 80_000 * max(min(step, last) - 400, 0), 7_000 * max(step - 400, 0)
            look = Look(heap_in_use=Bytes(200_000_000 + heap), heap_kept=Bytes(1_000_000 + kept))
            timeline.append(Sample(Step(step), 0.1 * step, Bytes(300_000_000 + heap + kept), None, look))
        case = _Case(timeline.buckets(), BUDGETS, JudgeConfig(), NO_EVIDENCE, Step(2000), final=True)

        assert case._largest_part(Growth("leak", None, Step(400), 0.0, 0.0)) == component

    def test_what_may_be_a_leak_says_how_often_it_comes(self) -> None:
        """2 MB every 40 steps of the later half, too few to be called a leak yet: a window has to wait for two."""
        timeline = Timeline()
        for step in range(1, 1001):
            grown = 2_000_000 * (max(step - 500, 0) // 40)
            look = Look(heap_in_use=Bytes(200_000_000 + grown), file=Bytes(50_000_000))
            timeline.append(Sample(Step(step), 0.1 * step, Bytes(300_000_000 + grown), None, look))

        (finding, *_) = judge(timeline.buckets(), BUDGETS, config=JudgeConfig()).verdict.findings

        assert finding.rate is not None
        assert (finding.verdict, finding.rate.every_steps) == ("warming", 40)

    def test_the_gravest_finding_names_the_run(self) -> None:
        """A flat part does not excuse a leaking one."""
        flat = Finding(verdict="flat", component="host.native", detected_step=Step(1), message="")
        leak = Finding(verdict="leak", component="host.children", detected_step=Step(1), message="")

        verdict = Verdict.of((flat, leak), Step(1))

        assert verdict.kind == "leak"
        assert verdict.findings[0] is leak


class TestChildren:
    """Judged by what they take for themselves."""

    @pytest.mark.parametrize(("own", "kind"), [(0, "flat"), (20_000, "leak")])
    def test_pages_that_are_shared_with_the_parent_are_no_growth(self, own: int, kind: str) -> None:
        """The share of a worker in its parent's pages grows as these are written to; what it takes itself counts."""
        verdict = judged_with_children(lambda step: (own * step, 40_000 * step), count=lambda _: 1)

        found = next(one for one in verdict.verdict.findings if one.component == "host.children")
        assert found.verdict == kind
        assert not verdict.suspicious

    def test_that_the_first_child_starts_is_no_growth_of_it(self) -> None:
        """From nothing to 200 MB at step 200."""
        verdict = judged_with_children(lambda step: (0, 0), count=lambda step: int(step > 200))

        found = next(one for one in verdict.verdict.findings if one.component == "host.children")
        assert found.verdict == verdict.verdict.kind == "flat"

    def test_more_and_more_children_are_kept_by_their_parent(self) -> None:
        """So this process is looked into, and not they."""
        verdict = judged_with_children(
            lambda step: (2_500_000 * (step // 50), 0), count=lambda step: 1 + step // 50
        )

        assert verdict.suspicious
        assert not verdict.children

    def test_none_are_no_finding(self) -> None:
        """A run without children is not told that they stayed flat."""
        verdict = judged_with_children(lambda step: (0, 0), count=lambda _: 0)

        assert "host.children" not in {one.component for one in verdict.verdict.findings}


def judged_with_children(grown: Callable[[int], tuple[int, int]], *, count: Callable[[int], int]) -> Judgement:
    """The judgement of a run whose children grow by so many bytes of their own, and of pages that they share."""
    timeline = Timeline()
    for step in range(1, 1001):
        own, shared = grown(step)
        there = 200_000_000 * bool(count(step))
        look = Look(
            heap_in_use=Bytes(200_000_000), children_own=Bytes(there + own),
            children=Bytes(there + own + shared), child_count=count(step),
        )  # fmt: skip
        timeline.append(Sample(Step(step), 0.1 * step, Bytes(300_000_000), None, look))
    return judge(timeline.buckets(), BUDGETS, config=JudgeConfig(), final=True)


def grown_on_device(budgets: Budgets) -> Finding:
    """The finding of a run whose device memory grows by 1 MB a step from 1 GB on, for 1,000 steps."""
    timeline = Timeline()
    for step in range(1, 1001):
        held = Bytes(10**9 + 10**6 * step)
        device, look = DeviceMemory(held, held), Look(heap_in_use=Bytes(200_000_000))
        timeline.append(Sample(Step(step), 0.1 * step, Bytes(300_000_000), device, look))
    verdict = judge(timeline.buckets(), budgets, config=JudgeConfig()).verdict
    return next(one for one in verdict.findings if one.component.startswith("device.") and one.verdict == "leak")


class TestShared:
    """Shared memory."""

    def test_is_counted_for_before_it_is_a_leak(self) -> None:
        """A run of 66 steps ends before anything is called so, and has let go of all when it has ended."""
        timeline = Timeline()
        for step in range(1, 67):
            look = Look(shared_memory=Bytes(700_000 * step), file=Bytes(50_000_000))
            timeline.append(Sample(Step(step), 1.4 * step, Bytes(300_000_000 + 700_000 * step), None, look))

        judgement = judge(timeline.buckets(), BUDGETS, config=JudgeConfig())

        assert judgement.suspicious
        assert judgement.verdict.kind != "leak"

    def test_what_stays_is_not_counted_for(self) -> None:
        """Blocks that were made at the start."""
        timeline = Timeline()
        for step in range(1, 67):
            look = Look(shared_memory=Bytes(40_000_000), file=Bytes(50_000_000))
            timeline.append(Sample(Step(step), 1.4 * step, Bytes(300_000_000), None, look))

        assert not judge(timeline.buckets(), BUDGETS, config=JudgeConfig()).suspicious


class TestPinned:
    """Memory that is pinned for a device is shared, as the kernel counts it."""

    @pytest.mark.parametrize(("pinned", "component"), [(1_000_000, "host.pinned"), (0, "host.shared")])
    def test_is_named_where_it_grows_as_much(self, pinned: int, component: str) -> None:
        """It is read seldom: at every 200th step."""
        timeline = Timeline()
        for step in range(1, 1001):
            seldom = Bytes(pinned * step) if step % 200 == 0 or step == 1 else None
            look = Look(heap_in_use=Bytes(200_000_000), shared_memory=Bytes(1_000_000 * step), pinned=seldom)
            timeline.append(Sample(Step(step), 0.1 * step, Bytes(300_000_000 + 1_000_000 * step), None, look))

        verdict = judge(timeline.buckets(), BUDGETS, config=JudgeConfig(), final=True).verdict

        assert [one.component for one in verdict.findings if one.verdict == "leak"] == [component]


class TestGraphPools:
    """What an allocator keeps is fragmentation, unless live graphs keep it."""

    @pytest.mark.parametrize(("pools", "kind"), [(0.0, "fragmentation"), (0.9e9, "leak"), (None, "fragmentation")])
    def test_by_what_their_pools_have_grown(self, pools: float | None, kind: str) -> None:
        """1 MB more a step is reserved, and what is in use stays."""
        timeline = Timeline()
        for step in range(1, 1001):
            device = DeviceMemory(Bytes(10**8), Bytes(10**8 + 10**6 * step))
            look = Look(heap_in_use=Bytes(200_000_000))
            timeline.append(Sample(Step(step), 0.1 * step, Bytes(300_000_000), device, look))
        known = [None if pools is None else 0.0, pools]
        counts = tuple(
            Holdings(step, 2e8, 0, 0, 0, 0, None, graph_pools=held)
            for step, held in zip((16, 1000), known, strict=True)
        )

        verdict = judge(
            timeline.buckets(), BOTH, config=JudgeConfig(), evidence=Evidence(counts), final=True
        ).verdict

        assert (verdict.kind, verdict.findings[0].component) == (kind, "device.reserved")


class TestForecastByPool:
    """A growth leads to the budget of its own pool, from what that pool holds."""

    def test_a_leak_on_the_device_leads_to_the_devices_budget(self) -> None:
        """2 GB reserved of 5 GB, 1 MB a step: 3,000 steps; the host's 1 GB has nothing to do with it."""
        forecast = grown_on_device(BOTH).forecast

        assert isinstance(forecast, Forecast)
        assert (forecast.limit_bytes, round(forecast.steps, -1)) == (5 * 10**9, 3000)

    def test_a_leak_in_the_host_leads_to_the_hosts(self) -> None:
        """Whatever the device's budget is."""
        assert judged(1e5, budgets=BOTH).findings[0].forecast == judged(1e5).findings[0].forecast

    @pytest.mark.parametrize(
        ("component", "budgets", "held"),
        [
            ("host.native", BOTH, 1), ("device.active", BOTH, 4), ("device.other", BOTH, 6),
            ("host.native", Budgets(BUDGETS.host, unified=True), 5),
        ],
        ids=["host", "device", "device and what others took there", "one pool"],
    )  # fmt: skip
    def test_the_level_is_the_pools(self, component: Component, budgets: Budgets, held: int) -> None:
        """1 GB resident, 4 GB reserved, 2 GB taken by other libraries."""
        timeline = Timeline()
        device = DeviceMemory(Bytes(3 * 10**9), Bytes(4 * 10**9))
        timeline.append(Sample(Step(1), 0.1, Bytes(10**9), device, Look(device_other=Bytes(2 * 10**9))))

        assert level(timeline.buckets(), component, budgets) == held * 10**9


def test_judging_never_warns_on_few_samples() -> None:
    """A run of one step is unknown, not an error."""
    timeline = Timeline()
    timeline.append(make_sample(1, 1e8))

    assert judge(timeline.buckets(), BUDGETS, config=JudgeConfig()).verdict.kind == "unknown"
    assert np.isnan(timeline.buckets().means("loss")).all()
