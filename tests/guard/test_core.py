"""The guard's mind: the same samples give the same events, in bounded memory."""

import tracemalloc
from typing import TYPE_CHECKING

import numpy as np

from holdwater.budget import Budget, Budgets
from holdwater.detectors.headroom import HeadroomConfig
from holdwater.detectors.verdict import Verdict
from holdwater.guard.core import CoreConfig, Event, GuardCore
from holdwater.policy.decision import Decision
from holdwater.policy.remedies import RemedyConfig
from holdwater.testing import make_sample
from holdwater.units import Bytes

if TYPE_CHECKING:
    from holdwater.probes.sample import Sample

GB = 10**9


def new_core(*, limit: float = 1.0) -> GuardCore:
    """A core with a budget in GB; it waits below 3 GB available and stops below 2 GB."""
    headroom = HeadroomConfig(waiting_below=Bytes(3 * GB), stopping_below=Bytes(2 * GB))
    return GuardCore(Budgets(Budget(Bytes(int(limit * GB)), "given", "")), CoreConfig(headroom=headroom))


def feed(core: GuardCore, *, steps: int, rate: float = 0.0, seed: int = 0) -> list[Event]:
    """Let memory grow by `rate` bytes a step from 300 MB on; return all events."""
    noise = np.random.default_rng(seed).normal(0, 2e5, steps)
    return [
        event
        for step in range(1, steps + 1)
        for event in core.observe(make_sample(step, 3e8 + rate * step + noise[step - 1]))
    ]


class TestGuardCore:
    """Samples in, events out."""

    def test_finds_a_leak_while_the_run_goes_on(self) -> None:
        """Within a few hundred steps, and says so in a verdict."""
        events = feed(new_core(limit=50), steps=500, rate=5e5)

        kinds = [event.kind for event in events if isinstance(event, Verdict)]
        assert "leak" in kinds

    def test_says_nothing_of_a_healthy_run(self) -> None:
        """No decision, and never the word leak."""
        events = feed(new_core(), steps=5000)

        assert not [event for event in events if isinstance(event, Decision)]
        assert {event.kind for event in events if isinstance(event, Verdict)} == {"flat"}

    def test_is_deterministic(self) -> None:
        """A stored run can be judged again."""
        assert feed(new_core(), steps=600, rate=3e5) == feed(new_core(), steps=600, rate=3e5)

    def test_a_dear_leak_is_answered_with_a_release(self) -> None:
        """Above 1 MB a step, remedies act once it is judged."""
        events = feed(new_core(limit=500), steps=600, rate=2e6)

        actions = [event.action for event in events if isinstance(event, Decision)]
        assert actions == ["synchronise", "collect", "clear_caches", "trim"]

    def test_pressure_is_part_of_the_verdict(self) -> None:
        """A run that had to wait says so, also when memory was flat."""
        core = new_core()
        for step in range(1, 301):
            core.observe(make_sample(step, 3e8, available=int(2.5 * GB) if step == 100 else 9 * GB))

        verdict = core.judge()

        assert verdict.kind == "pressure"
        assert verdict.findings[0].detected_step == 100

    def test_a_sample_waits_only_where_nothing_follows_from_it(self) -> None:
        """Below the threshold, with no other reading."""
        core = new_core()
        assert not core.can_wait(make_sample(0, 3e8))  # the first
        core.observe(make_sample(0, 3e8))

        assert core.can_wait(make_sample(1, 7.9e8))
        assert not core.can_wait(make_sample(1, 8e8))
        assert not core.can_wait(make_sample(1, 3e8, available=9 * GB))

    def test_a_sample_of_a_step_after_which_caches_are_cleared_does_not_wait(self) -> None:
        """Every ten steps, as configured."""
        core = new_core()
        headroom = HeadroomConfig(waiting_below=Bytes(3 * GB), stopping_below=Bytes(2 * GB))
        remedies = RemedyConfig(cache_clear_interval=10)
        core = GuardCore(core.budgets, CoreConfig(headroom=headroom, remedies=remedies))
        core.observe(make_sample(13, 3e8))

        assert core.can_wait(make_sample(19, 3e8))
        assert not core.can_wait(make_sample(20, 3e8))

    def test_a_device_that_fills_is_answered_at_once(self) -> None:
        """Its budget is its own."""
        core = new_core()
        core.observe(make_sample(0, 3e8))
        core.keep(Budgets(Budget(Bytes(GB), "given", ""), device=Budget(Bytes(4 * GB), "given", "")))

        assert core.can_wait(make_sample(1, 3e8, device_reserved=3 * GB))
        assert not core.can_wait(make_sample(1, 3e8, device_reserved=int(3.2 * GB)))

    def test_samples_that_waited_give_the_same_verdict(self) -> None:
        """What is observed together is observed in order."""
        waiting: list[Sample] = []
        core, plain = new_core(limit=50), new_core(limit=50)
        events: list[Event] = []
        for step in range(1, 501):
            sample = make_sample(step, 3e8 + 5e5 * step)
            waiting.append(sample)
            if len(waiting) == 64 or not core.can_wait(sample):
                events += [event for one in waiting for event in core.observe(one)]
                waiting.clear()

        assert events == [
            event for step in range(1, 501) for event in plain.observe(make_sample(step, 3e8 + 5e5 * step))
        ]

    def test_a_judgement_can_be_put_off(self) -> None:
        """Until 20 s have passed; a step of these takes 0.1 s."""
        core = new_core()
        core.judge_after(20.0)

        judged = [step for step in range(1, 250) for _ in core.observe(make_sample(step, 3e8))]

        assert judged == [200]

    def test_its_memory_does_not_grow(self) -> None:
        """After its timeline is full, forty thousand samples more cost nothing (a benchmark does a million)."""
        core = new_core()
        feed(core, steps=9000)
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for step in range(9001, 49_001):
                core.observe(make_sample(step, 3e8))
            after = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()

        assert after - before < 200_000
