"""Sizes and rates of memory: read from text, written as text, always with a unit.

`1 MB` is 10^6 bytes and `1 MiB` is 2^20 bytes (IEC 80000-13). Written sizes are decimal.
"""

import re
from typing import NewType

from holdwater.errors import UnitError

Bytes = NewType("Bytes", int)
"""A size of memory, in bytes."""

Step = NewType("Step", int)
"""The number of an optimizer step, counted from 1; 0 is the time before the first."""

_FACTORS = {
    "b": 1,
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgtp", start=1)},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgtp", start=1)},
}
_SIZE = re.compile(r"\s*([0-9][0-9_]*(?:\.[0-9]+)?)\s*([a-z]*)\s*", re.IGNORECASE)
_KNOWN = "B, kB, MB, GB, TB (powers of 1000) or KiB, MiB, GiB, TiB (powers of 1024)"


def parse_size(text: str, *, bare_unit: str | None = None) -> Bytes:
    """Read a size such as `70GB`, `512 MiB` or `1.5 GB`.

    Args:
        text: The size as a person wrote it; case and spaces do not matter.
        bare_unit: The unit of a number without one; None refuses such a number.

    Returns:
        The size, rounded to whole bytes.

    Raises:
        UnitError: The text is no size, has no unit where one is needed, or is zero.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise UnitError(f"{text!r} is not a size; write a number and a unit, such as 70GB or 512MiB")
    number, unit = match.group(1), match.group(2) or bare_unit
    if unit is None:
        raise UnitError(f"{text!r} has no unit; write {text.strip()}GB, or another of {_KNOWN}")
    factor = _FACTORS.get(unit.lower())
    if factor is None:
        raise UnitError(f"{text!r} has the unknown unit {unit!r}; write one of {_KNOWN}")
    size = round(float(number.replace("_", "")) * factor)
    if size <= 0:
        raise UnitError(f"{text!r} is no memory at all; write a size above zero, such as 1GB")
    return Bytes(size)


def parse_rate(text: str) -> float:
    """Read a growth rate such as `1 MB/step`.

    Args:
        text: A size and `/step`; a bare number means MB per step.

    Returns:
        Bytes per step.

    Raises:
        UnitError: The text is no rate per step.
    """
    size, slash, per = text.partition("/")
    if slash and per.strip().lower() != "step":
        raise UnitError(f"{text!r} is a rate per {per.strip()!r}; write a rate per step, such as 1 MB/step")
    return float(parse_size(size, bare_unit="MB"))


def format_size(size: float) -> str:
    """Write a size with three significant digits and its unit, such as `70.0 GB`."""
    magnitude = abs(size)
    for factor, unit in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if magnitude >= 0.9995 * factor:
            scaled = size / factor
            digits = 2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0
            return f"{scaled:.{digits}f} {unit}"
    return f"{size:.0f} B"


def format_rate(rate: float) -> str:
    """Write a growth rate in bytes per step with its unit, such as `+1.20 MB/step`."""
    sign = "+" if rate > 0 else ""
    return f"{sign}{format_size(rate)}/step"
