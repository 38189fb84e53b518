"""The catalogue of known causes: what gives each away, why it grows, and the cure in two lines of code.

The catalogue is data (`patterns.toml` beside this file), read when it is first needed.
"""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("patterns.toml")


@dataclass(frozen=True, slots=True)
class Pattern:
    """A known cause."""

    name: str
    title: str
    why: str
    cure: str
    """Two lines of code."""
    reference: str
    """A public thread or manual about it."""


@lru_cache(maxsize=1)
def read_patterns() -> tuple[tuple[Pattern, dict[str, Any]], ...]:
    """The catalogue, each pattern with its conditions, the more telling first."""
    rows = tomllib.loads(FILE.read_text(encoding="utf-8"))["pattern"]
    names = ("name", "title", "why", "cure", "reference")
    return tuple((Pattern(**{name: row[name] for name in names}), row["when"]) for row in rows)


def named_pattern(name: str) -> Pattern | None:
    """The pattern of this name; None where the catalogue has none."""
    return next((pattern for pattern, _ in read_patterns() if pattern.name == name), None)


def find_pattern(gain: Mapping[str, Any], sites: Sequence[object], component: str) -> Pattern | None:
    """The first pattern that fits.

    Args:
        gain: The heaviest gain, as `Gain.as_json`; empty where nothing was found to hold the growth.
        sites: What the explanation names; without any nothing is known.
        component: What grows.
    """
    if not gain and not sites:
        return None
    return next((pattern for pattern, when in read_patterns() if _fits(when, gain, component)), None)


def _fits(when: Mapping[str, Any], gain: Mapping[str, Any], component: str) -> bool:
    """Whether all conditions hold."""
    naming = gain.get("naming") or {}
    tests: dict[str, Callable[[Any], bool]] = {
        "kind": lambda wanted: gain.get("kind") in wanted if wanted else not gain,
        "type": lambda wanted: gain.get("type") in wanted,
        "name": lambda wanted: naming.get("name") in wanted,
        "role": lambda wanted: naming.get("role") in wanted,
        "owner": lambda wanted: any(part["owner"].startswith(tuple(wanted)) for part in gain.get("path", ())),
        "elements": lambda wanted: any(kind.endswith(tuple(wanted)) for kind in gain.get("elements", ())),
        "nodes": lambda wanted: bool(gain.get("nodes")) == wanted,
        "views": lambda wanted: bool(gain.get("views")) == wanted,
        "never": lambda _: False,
        "component": lambda wanted: component in wanted,
    }
    return all(tests[name](wanted) for name, wanted in when.items())
