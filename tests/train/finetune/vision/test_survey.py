"""What pictures a run will meet."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from holdwater.train.finetune.vision.pictures import Picture
from holdwater.train.finetune.vision.survey import TOLD, WIDTH, histogram, survey


def picture(width: int, height: int) -> Picture:
    """One of this size."""
    file = io.BytesIO()
    Image.new("L", (width, height)).save(file, "PNG")
    return Picture(file.getvalue(), "a picture")


MISSING = Picture(Path("/none.png"), "example 2, picture 1 (none.png)")


class TestSurvey:
    """Sizes, tokens, and what is broken."""

    def test_counts_pictures_and_tokens(self) -> None:
        """An example with a broken picture has no known count; one without pictures has none."""
        rows = [
            (0, [picture(20, 10), picture(4, 5)]),
            (1, [MISSING, picture(2, 2)]),
            (2, []),
            (3, [picture(3, 3)]),
        ]

        found = survey(rows, seconds=60, tokens=lambda width, height: width * height)

        assert (found.examples, found.complete, found.broken_count) == (4, True, 1)
        assert list(zip(found.widths, found.heights, strict=True)) == [(20, 10), (4, 5), (2, 2), (3, 3)]
        assert list(found.counts) == [220, 9]
        assert found.broken[0][0] == 1
        assert "example 2, picture 1 (none.png): the file /none.png is not there" in found.broken[0][1]
        assert found.summary == "4 pictures in 4 examples, from 2 × 2 to 20 × 10 pixels"

    def test_ends_when_the_time_is_up(self) -> None:
        """However many there are."""

        def endless() -> Iterator[tuple[int, list[Picture]]]:
            """One after another."""
            while True:
                yield 0, [picture(1, 1)]

        found = survey(endless(), seconds=0.05)

        assert not found.complete
        assert found.examples == len(found.widths) > 0
        assert not found.counts

    def test_keeps_few_of_many_messages(self) -> None:
        """A folder that is not there makes one of each picture."""
        found = survey(((number, [MISSING]) for number in range(100)), seconds=60)

        assert (len(found.broken), found.broken_count, found.summary) == (TOLD, 100, "no picture")


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
