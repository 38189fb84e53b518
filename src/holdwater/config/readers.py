"""Read the values of keys: what a file, the environment or a flag holds becomes a number, a size or a word.

The flags of each command need them, so this imports nothing that takes time.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from holdwater.errors import ConfigError
from holdwater.units import Bytes, parse_rate, parse_size

Reader = Callable[[object], Any]
"""Turns what a file, the environment or a flag holds into a value, or raises ConfigError with the reason."""


def whole(least: int, most: int | None = None) -> Reader:
    """Read a whole number of at least `least` and at most `most`."""

    def read(value: object) -> int:
        try:
            number = int(str(value).replace("_", ""))
        except ValueError:
            raise ConfigError(f"it needs a whole number, such as {max(least, 1)}") from None
        if number < least or (most is not None and number > most):
            raise ConfigError(f"it must be {least} or more{'' if most is None else f', and at most {most}'}")
        return number

    return read


def real(least: float, most: float, *, example: float, above: bool = False) -> Reader:
    """Read a number between `least` and `most`; with `above`, `least` itself is not allowed."""

    def read(value: object) -> float:
        try:
            number = float(str(value))
        except ValueError:
            raise ConfigError(f"it needs a number, such as {example:g}") from None
        if not (least < number <= most if above else least <= number <= most):
            bound = f"above {least:g}" if above else f"{least:g} or more"
            raise ConfigError(f"it must be {bound} and at most {most:g}; write {example:g}, say")
        return number

    return read


def choice(*words: str) -> Reader:
    """Read one of some words."""

    def read(value: object) -> str:
        if str(value) not in words:
            raise ConfigError(f"it must be one of {', '.join(words)}")
        return str(value)

    return read


def switch(value: object) -> bool:
    """Read yes or no; a flag without a value is a yes."""
    words = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}
    if str(value).lower() not in words:
        raise ConfigError("it must be yes or no")
    return words[str(value).lower()]


def text(value: object) -> str:
    """Read a word or a path as it stands."""
    if not isinstance(value, str) or not value:
        raise ConfigError("it needs a text")
    return value


def path(value: object) -> Path:
    """Read a path; `~` is the home folder."""
    return Path(text(value)).expanduser()


def size(value: object) -> Bytes:
    """Read a size; a bare number is in GB."""
    return parse_size(str(value), bare_unit="GB")


def rate(value: object) -> float:
    """Read a growth rate; a bare number is in MB per step."""
    return parse_rate(str(value))


def percentage(value: object) -> float:
    """Read a percentage as a share."""
    return float(real(0, 100, example=80, above=True)(str(value).removesuffix("%"))) / 100


def bits(value: object) -> int:
    """Read how many bits a weight has."""
    return int(choice("4", "8")(str(value)))


def some_of(*words: str) -> Reader:
    """Read a list of some words, with commas between them; a YAML list is read too."""

    def read(value: object) -> tuple[str, ...]:
        given = value if isinstance(value, list | tuple) else str(value).split(",")
        found = tuple(dict.fromkeys(str(one).strip() for one in given))
        if not set(found) <= set(words):
            raise ConfigError(f"it must be some of {','.join(words)}, with commas between them")
        return found

    return read
