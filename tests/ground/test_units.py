"""Sizes and rates: read as people write them, written so that they can be read again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdwater.errors import ConfigError, UnitError
from holdwater.units import format_rate, format_size, parse_rate, parse_size


class TestParseSize:
    """`parse_size` reads a number and a unit."""

    @pytest.mark.parametrize(
        ("text", "size"),
        [
            ("70GB", 70_000_000_000),
            ("512 MiB", 536_870_912),
            ("1.5 GB", 1_500_000_000),
            ("1_000 kB", 1_000_000),
            ("2tib", 2_199_023_255_552),
            (" 8 b ", 8),
        ],
    )
    def test_reads_decimal_and_binary_units(self, text: str, size: int) -> None:
        """MB is 10^6 bytes, MiB is 2^20."""
        assert parse_size(text) == size

    def test_takes_the_unit_of_a_bare_number_from_the_caller(self) -> None:
        """A bare number on --max-memory is in GB."""
        assert parse_size("70", bare_unit="GB") == 70_000_000_000

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("70", "70GB"),
            ("3XB", "'XB'"),
            ("", "not a size"),
            ("-1GB", "not a size"),
            ("0GB", "above zero"),
            ("1e9", "not a size"),
        ],
    )
    def test_refuses_what_is_no_size_and_says_what_to_write(self, text: str, words: str) -> None:
        """The message quotes the text and names what would work."""
        with pytest.raises(UnitError, match=words):
            parse_size(text)

    def test_is_a_config_error(self) -> None:
        """A wrong size is a mistake in the call."""
        assert issubclass(UnitError, ConfigError)


class TestFormatSize:
    """`format_size` writes three digits and a unit."""

    @pytest.mark.parametrize(
        ("size", "text"),
        [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.00 kB"),
            (1_234_567, "1.23 MB"),
            (70_000_000_000, "70.0 GB"),
            (999_999, "1.00 MB"),
            (123_400_000_000, "123 GB"),
            (-2_500_000, "-2.50 MB"),
        ],
    )
    def test_writes_three_digits_and_a_unit(self, size: float, text: str) -> None:
        """Text always carries its unit."""
        assert format_size(size) == text

    @given(st.integers(min_value=1, max_value=10**15))
    def test_can_be_read_again(self, size: int) -> None:
        """What is written is read as the same size, to three digits."""
        assert parse_size(format_size(size)) == pytest.approx(size, rel=0.006)


class TestRates:
    """Growth rates, per step."""

    @pytest.mark.parametrize(("text", "rate"), [("1 MB/step", 1e6), ("1.5", 1.5e6), ("20 kB/step", 2e4)])
    def test_reads_a_size_per_step(self, text: str, rate: float) -> None:
        """A bare number is in MB per step."""
        assert parse_rate(text) == rate

    def test_refuses_another_clock(self) -> None:
        """A rate per second is not one per step."""
        with pytest.raises(UnitError, match="per step"):
            parse_rate("1 MB/s")

    def test_writes_a_sign(self) -> None:
        """Growth has a plus."""
        assert format_rate(1_200_000) == "+1.20 MB/step"
