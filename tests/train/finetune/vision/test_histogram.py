"""The histogram of token counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdwater.train.finetune.vision.histogram import WIDTH, histogram


class TestHistogram:
    """A handful of lines."""

    def test_by_hand(self) -> None:
        """Ranges are of round numbers; what is over the limit stands alone."""
        counts = [120] * 3000 + [199] + [410] * 1500 + [2049]

        assert histogram(counts, limit=2048).split("\n") == [
            "100 to 199  3,001  ██████████████████████████████",
            "200 to 299      0",
            "300 to 399      0",
            "400 to 499  1,500  ███████████████",
            "over 2,048      1  █",
        ]

    @pytest.mark.parametrize(
        ("counts", "text"),
        [([], ""), ([7], "7  1  " + "█" * WIDTH), ([9, 9], "over 8  2  " + "█" * WIDTH)],
    )
    def test_of_little(self, counts: list[int], text: str) -> None:
        """Nothing, one number, and nothing within the limit."""
        assert histogram(counts, limit=8) == text

    @given(counts=st.lists(st.integers(0, 10**6), min_size=1), limit=st.integers(1, 10**6))
    def test_every_example_is_counted_once(self, counts: list[int], limit: int) -> None:
        """In at most eight lines."""
        lines = histogram(counts, limit=limit).split("\n")

        assert sum(int(line.split("  █")[0].split()[-1].replace(",", "")) for line in lines) == len(counts)
        assert len(lines) <= 8
