"""Readings come by elapsed time: no part of a run is unread, whatever its pace, and the cost stays in its share."""

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdwater.probes.pace import Pace, allowance

STEP_SECONDS = st.floats(min_value=math.log(50e-6), max_value=math.log(60.0)).map(math.exp)
STEPS = st.floats(min_value=math.log(20), max_value=math.log(1e7)).map(lambda size: int(math.exp(size)))


@dataclass
class Run:
    """A run on a clock that is turned by hand; a reading is taken at the end of the first step at which it is due."""

    pace: Pace = field(default_factory=lambda: Pace(0.25, cheapest=True))
    cost: float = 1.0
    now: float = 0.0
    read_at: list[float] = field(default_factory=list)

    def step(self, seconds: float) -> None:
        """Let one step pass, and read if it is time."""
        self.now += seconds
        if self.now >= self.pace.due:
            self.read()

    def read(self) -> None:
        """Take a reading, which takes its time."""
        self.read_at.append(self.now)
        self.pace.note(self.now, self.cost)

    def skip_to_due(self, step: float) -> None:
        """Let as many equal steps pass as lie before the next reading."""
        steps = max(math.ceil((self.pace.due - self.now) / step), 1)
        self.now += steps * step
        self.read()


class TestTheCheapestReading:
    """It has no gap longer than a step, or 1/400 of the time that has passed."""

    @given(step=STEP_SECONDS, steps=STEPS)
    @settings(max_examples=200, deadline=None)
    def test_leaves_no_gap_at_any_pace_and_length(self, step: float, steps: int) -> None:
        """Steps of 50 µs to a minute, 20 to ten million of them."""
        run = Run()
        run.read()
        while run.now < steps * step:
            before = run.now
            run.skip_to_due(step)

            most = max(step, run.now / 400) if run.now > 600 else max(step, min(run.now / 400, 1.0))
            assert run.read_at[-1] - before <= most * (1 + 1e-9)

    @given(
        seconds=st.lists(STEP_SECONDS | st.just(3600.0), min_size=20, max_size=400),
    )
    @settings(max_examples=200, deadline=None)
    def test_leaves_no_gap_where_steps_are_uneven(self, seconds: list[float]) -> None:
        """With pauses of an hour among them (a suspended machine): one step, and 1/800 of the time before it."""
        run = Run()
        run.read()
        for step in seconds:
            before, last = run.now, run.read_at[-1]
            run.step(step)

            assert run.read_at[-1] == run.now or run.now - last <= max(last / 800, 0.0) + 1e-9
            assert run.now - before >= 0

    def test_reads_each_step_of_a_slow_run(self) -> None:
        """Steps of a second are all read in the first minutes."""
        run = Run()
        run.read()
        for _ in range(300):
            run.step(1.0)

        assert len(run.read_at) == 301

    def test_of_a_high_price_is_read_by_thousands_in_ten_hours(self) -> None:
        """However expensive it is."""
        run = Run(cost=1.0)
        run.read()
        while run.now < 36_000:
            run.skip_to_due(0.001)

        assert 5_000 < len(run.read_at) < 16_000

    def test_of_a_low_price_comes_more_often(self) -> None:
        """A reading of 15 µs: each step of 20 ms in the first minutes, within its part of the allowance."""
        run = Run(cost=15e-6)
        run.read()
        while run.now < 120:
            run.skip_to_due(0.02)

        assert len(run.read_at) > 5_900
        assert 15e-6 * len(run.read_at) < 0.25 * allowance(120)


class TestADearReading:
    """It waits for its cost, and its kind stays within its share."""

    @given(cost=st.floats(min_value=math.log(1e-6), max_value=math.log(0.05)).map(math.exp), step=STEP_SECONDS)
    @settings(max_examples=100, deadline=None)
    def test_stays_within_its_part_of_the_allowance(self, cost: float, step: float) -> None:
        """In the first minute, ten minutes, and an hour; one reading more than the allowance is always made."""
        run = Run(Pace(0.2), cost)
        run.read()
        for until in (60.0, 600.0, 3600.0):
            while run.now < until:
                run.skip_to_due(step)

            spent = cost * len([at for at in run.read_at if at < until])
            assert spent <= 0.2 * allowance(until) + 2 * cost

    def test_one_long_reading_does_not_silence_it(self) -> None:
        """A reading during which the machine was busy elsewhere is not taken for its cost."""
        run = Run(Pace(0.2), 1e-5)
        run.read()
        while run.now < 10:
            run.skip_to_due(0.01)
        run.cost = 5.0
        run.skip_to_due(0.01)
        run.cost = 1e-5

        assert run.pace.due - run.now < 1.0


class TestTheAllowance:
    """What all readings may take."""

    @pytest.mark.parametrize(("seconds", "share"), [(60, 0.01), (600, 0.003), (3600, 0.0011), (7200, 0.001)])
    def test_falls_with_the_length_of_the_run(self, seconds: float, share: float) -> None:
        """1 % of a minute, 0.3 % of ten, 0.1 % of hours."""
        assert allowance(seconds) <= share * seconds
