"""Tests of regular clean-ups: a release is done again only if it was measured to pay."""

from holdwater.budget import InUse
from holdwater.policy.clean_ups import CleanUps

MB = 1_000_000


class TestCleanUps:
    """Each is tried once; then its record decides."""

    def test_repeats_what_stays_free(self) -> None:
        """It freed 50 MB, and the next step did not need them."""
        clean_ups = CleanUps()
        assert clean_ups.is_worth("collect", InUse(500 * MB), 0.0)

        clean_ups.learn("collect", freed=50 * MB, took=0.1, in_use=InUse(450 * MB), seconds=0.0)

        assert clean_ups.note_next(InUse(451 * MB)) == ()
        assert clean_ups.is_worth("collect", InUse(500 * MB), 60.0)

    def test_rests_what_freed_nothing_until_memory_has_grown(self) -> None:
        """By 5 %: then something new may be there to free."""
        clean_ups = CleanUps()

        clean_ups.learn("collect", freed=1000, took=0.1, in_use=InUse(500 * MB), seconds=0.0)

        assert clean_ups.note_next(InUse(500 * MB)) == ("collect",)
        assert not clean_ups.is_worth("collect", InUse(510 * MB), 1000.0)
        assert clean_ups.is_worth("collect", InUse(526 * MB), 1000.0)

    def test_rests_what_the_next_step_takes_again(self) -> None:
        """An allocator's cache that the step needs: freeing it costs time, and frees nothing."""
        clean_ups = CleanUps()

        clean_ups.learn("trim", freed=80 * MB, took=0.01, in_use=InUse(420 * MB), seconds=0.0)

        assert clean_ups.note_next(InUse(500 * MB)) == ("trim",)
        assert not clean_ups.is_worth("trim", InUse(420 * MB), 1000.0)

    def test_spaces_what_pays_by_its_cost(self) -> None:
        """Of a second each, at most one in a hundred seconds."""
        clean_ups = CleanUps()

        clean_ups.learn("collect", freed=50 * MB, took=1.0, in_use=InUse(450 * MB), seconds=10.0)
        clean_ups.note_next(InUse(450 * MB))

        assert not clean_ups.is_worth("collect", InUse(500 * MB), 109.0)
        assert clean_ups.is_worth("collect", InUse(500 * MB), 111.0)

    def test_knows_of_each_action_by_itself(self) -> None:
        """One that freed nothing rests, and the other that did goes on."""
        clean_ups = CleanUps()
        clean_ups.learn("collect", freed=0, took=0.1, in_use=InUse(500 * MB), seconds=0.0)
        clean_ups.learn("trim", freed=40 * MB, took=0.001, in_use=InUse(460 * MB), seconds=0.1)

        assert clean_ups.note_next(InUse(461 * MB)) == ("collect",)
        assert clean_ups.is_worth("trim", InUse(461 * MB), 60.0)
