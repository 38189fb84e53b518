"""Readings of regions over a run: few, each at twice the step, within their share."""

from holdwater.observe.regions import RegionHistory
from holdwater.probes.mappings import Region
from holdwater.testing import ManualClock

MIB = 1 << 20


class Growing:
    """A region of 100 MiB of which one more MiB is touched at each reading; a reading takes its time."""

    def __init__(self, clock: ManualClock, cost: float) -> None:
        self.reads, self._clock, self._cost = 0, clock, cost

    def __call__(self, pid: int) -> tuple[Region, ...]:
        """Read."""
        self.reads += 1
        self._clock.advance(self._cost)
        return (Region(0, 100 * MIB, self.reads * MIB, "private"),)


def history(cost: float = 0.01) -> tuple[RegionHistory, ManualClock]:
    """A history whose clock is turned by hand."""
    clock = ManualClock()
    return RegionHistory(1, read=Growing(clock, cost), elapsed=clock.elapsed, spent=clock.elapsed), clock


class TestRegionHistory:
    """Compares each earlier reading with the newest."""

    def test_one_reading_says_nothing(self) -> None:
        """There is nothing to compare with."""
        regions, _ = history()
        regions.read(10)

        assert regions.touched("private") == ()

    def test_says_what_was_touched_since_each(self) -> None:
        """The oldest first."""
        regions, _ = history()
        for step in (10, 20, 30, 40, 50):
            regions.read(step)

        assert [(one.since_step, one.inside) for one in regions.touched("private")] == [
            (10, 4 * MIB),
            (20, 3 * MIB),
            (40, MIB),
        ]

    def test_keeps_few(self) -> None:
        """Of a run of a million steps."""
        regions, _ = history()
        for step in range(1, 10**6, 9973):
            regions.read(step)

        assert len(regions.touched("private")) <= 12

    def test_what_functions_have_let_go_of_at_the_end_is_not_forgotten(self) -> None:
        """The script has returned from its main function, and the array that was being filled is gone."""
        readings = iter([4 * MIB, 20 * MIB, 2 * MIB])
        regions = RegionHistory(1, read=lambda _: (Region(0, 100 * MIB, next(readings), "private"),))
        regions.read(10)
        regions.read(20)
        regions.read(30, at_end=True)

        assert [one.inside for one in regions.touched("private")] == [16 * MIB]

    def test_what_has_grown_at_the_end_is_read(self) -> None:
        """The script holds it in a global."""
        regions, _ = history()
        regions.read(10)
        regions.read(30, at_end=True)

        assert [one.inside for one in regions.touched("private")] == [MIB]

    def test_is_affordable_within_its_share(self) -> None:
        """Two readings of a second are too much for the first minute, and little for an hour."""
        regions, clock = history(cost=1.0)
        regions.read(1)
        regions.read(2)
        clock.advance(60)
        early = regions.is_affordable
        clock.advance(3600)

        assert (early, regions.is_affordable) == (False, True)
