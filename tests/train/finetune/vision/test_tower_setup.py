"""Budgets of a run, from the pictures of its examples."""

from typing import Any, cast

from holdwater.train.finetune.vision.families import Grid
from holdwater.train.finetune.vision.tower_setup import KINDS, MOST_PATCHES, Sampled, budgets_for, micro_batches


class Patches:
    """Takes four patches for a feature."""

    patches, step = 1, 64

    def places(self, grid: Grid) -> int:
        """Patches."""
        return 4 * grid.height * grid.width


class Tiles:
    """Takes tiles of a thousand patches."""

    patches, step = 1024, 1

    def places(self, grid: Grid) -> int:
        """Tiles."""
        return grid.height


def budgets(tower: Any, sampled: list[Sampled], tokens: int = 100) -> tuple[int, ...]:
    """Of a tower that says no more than what is needed here."""
    return budgets_for(tower, micro_batches(tower, sampled, tokens=tokens))


class TestBudgets:
    """For pictures, and for micro-batches of them."""

    def test_hold_a_whole_micro_batch(self) -> None:
        """And single pictures, all in multiples of a step."""
        sampled = [Sampled(50, (Grid(4, 4),)) for _ in range(10)]

        assert budgets(Patches(), sampled) == (64, 128)

    def test_are_few_and_ascend(self) -> None:
        """However many sizes there are."""
        found = budgets(Patches(), [Sampled(60, (Grid(5, number),)) for number in range(3, 60)])

        assert list(found) == sorted(set(found))
        assert len(found) <= KINDS
        assert all(one % Patches.step == 0 for one in found)

    def test_pass_over_a_picture_that_is_too_large(self) -> None:
        """It has a pass of its own."""
        small, large = Sampled(100, (Grid(4, 4),)), Sampled(100, (Grid(100, 100),))

        assert budgets(Patches(), [small, large, small]) == (64,)
        assert budgets(Patches(), [large]) == ()

    def test_count_patches_of_tiles(self) -> None:
        """So that a pass of large tiles is no larger than one of small patches."""
        found = budgets(Tiles(), [Sampled(10, (Grid(17, 64),))] * 50, tokens=1000)

        assert found[-1] == MOST_PATCHES // Tiles.patches
        assert 17 in found

    def test_none_without_pictures(self) -> None:
        """A file of text, or no example."""
        assert budgets(Patches(), [Sampled(10, ())] * 5) == ()
        assert budgets(Patches(), []) == ()

    def test_micro_batches_are_filled_up(self) -> None:
        """As far as tokens go, in order; text takes its tokens too."""
        sampled = [Sampled(40, (Grid(1, 1), Grid(1, 2))), Sampled(50, ()), Sampled(20, (Grid(1, 3),))]

        assert micro_batches(cast("Any", Patches()), sampled, tokens=100) == [[4, 8], [12]]
        assert micro_batches(cast("Any", Patches()), sampled, tokens=110) == [[4, 8, 12]]
