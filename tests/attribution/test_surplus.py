"""What MLX holds beyond the arrays that were found is attributed to those that may keep it."""

from holdwater.attribution.gain import Gain
from holdwater.attribution.mlx_arrays import Held
from holdwater.attribution.surplus import BY_TOKENS, KEEPS_MORE, share_out
from holdwater.attribution.weights import Weight

MB = 1_000_000


def arrays(number: int, size: int, *, kind: str = "container", traits: tuple[str, ...] = ()) -> Gain:
    """A gain of so many arrays that show so many bytes together."""
    return Gain(
        kind,  # type: ignore[arg-type]
        "list",
        number,
        Weight(device=size),
        arrays=number,
        array_bytes=size,
        traits=list(traits),
    )


def total(*gains: Gain, active: int) -> list[int]:
    """The sizes of gains when MLX holds so much more."""
    share_out(list(gains), Held(active, 0))
    return [gain.weight.total for gain in gains]


class TestShareOut:
    """Arrays that keep more, or less, than they show."""

    def test_reports_what_arrays_keep_that_were_not_evaluated(self) -> None:
        """Forty numbers, and 40 MB more: a list of losses with their graphs."""
        losses = arrays(40, 160)

        assert total(losses, active=40 * MB) == [40 * MB]
        assert losses.traits == [KEEPS_MORE]

    def test_ignores_what_is_near_what_they_show(self) -> None:
        """Arrays that were evaluated, beside a little else."""
        outputs = arrays(40, 10 * MB)

        assert total(outputs, active=12 * MB) == [10 * MB]
        assert outputs.traits == []

    def test_corrects_arrays_that_repeat_others(self) -> None:
        """32 times the same column: they show 128 kB each, and take 4 kB."""
        assert total(arrays(40, 40 * 131_072), active=40 * 4096) == [40 * 4096]

    def test_shares_by_the_number_of_arrays(self) -> None:
        """Two lists, of which one gained three times as many."""
        assert total(arrays(30, 120), arrays(10, 40), active=4 * MB) == [3 * MB, MB]

    def test_reports_a_name_if_no_container_gained_arrays(self) -> None:
        """A total that was never evaluated."""
        running, weight = arrays(1, 0, kind="rebound"), arrays(1, 2 * MB, kind="value")

        assert total(running, weight, active=10 * MB) == [8 * MB, 2 * MB]

    def test_ignores_names_beside_a_container_that_gained_arrays(self) -> None:
        """The loss of the step, beside a list of losses."""
        loss, losses = arrays(1, 0, kind="rebound"), arrays(40, 160)

        assert total(loss, losses, active=4 * MB)[0] == 0

    def test_leaves_prompt_caches_as_they_are(self) -> None:
        """Their arrays grow by 256 tokens at a time: none between these counts."""
        cache = arrays(1, MB, kind="value", traits=(BY_TOKENS,))

        assert total(cache, active=0) == [MB]
