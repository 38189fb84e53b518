"""The catalogue of known causes: how each is recognised, why it grows, and the cure in two lines of code.

The catalogue is data (`patterns.toml` in this folder), read when it is first needed.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("patterns.toml")
MOST_OF = 0.5
"""Elements count as of a class if this share of them are."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A known cause."""

    name: str
    title: str
    why: str
    cure: str
    """Two lines of code."""
    reference: str
    """A public issue or manual about it."""


@lru_cache(maxsize=1)
def read_patterns() -> tuple[tuple[Pattern, list[dict[str, Any]]], ...]:
    """The catalogue, the more specific first: each pattern with its sets of conditions, one of which must hold."""
    rows = tomllib.loads(FILE.read_text(encoding="utf-8"))["pattern"]
    names = ("name", "title", "why", "cure", "reference")
    return tuple(
        (
            Pattern(**{name: row[name] for name in names}),
            row["when"] if isinstance(row["when"], list) else [row["when"]],
        )
        for row in rows
    )


def named_pattern(name: str) -> Pattern | None:
    """The pattern of this name; None if there is none."""
    return next((pattern for pattern, _ in read_patterns() if pattern.name == name), None)


@dataclass(frozen=True, slots=True)
class Grounds:
    """The evidence for a known cause: all of it was seen."""

    gain: Mapping[str, Any]
    """The largest gain, as `Gain.as_json`; empty if no holder of the growth was found."""
    component: str
    """What grows."""
    follows: str = "step"
    libraries: frozenset[str] = frozenset()
    """Libraries that the process has loaded."""
    new_sizes: bool = False
    """Whether blocks of new sizes were requested, or are kept."""
    recompiled: bool = False
    """Whether compiled functions of MLX were traced again and again meanwhile."""
    cached: bool = False
    """Whether most of it is in MLX's cache of freed buffers."""
    recorded: bool = False
    """Whether a line whose memory stays was recorded or traced."""


def find_pattern(grounds: Grounds) -> Pattern | None:
    """The first pattern that fits.

    Args:
        grounds: What was seen.
    """
    return next((pattern for pattern, when in read_patterns() if any(_fits(one, grounds) for one in when)), None)


def _fits(when: Mapping[str, Any], grounds: Grounds) -> bool:
    """Whether all conditions hold."""
    gain = grounds.gain
    naming = gain.get("naming") or {}
    bases, traits = gain.get("bases", {}), gain.get("traits", ())
    tests: dict[str, Callable[[Any], bool]] = {
        "library": lambda wanted: grounds.libraries >= set(wanted),
        "kind": lambda wanted: gain.get("kind") in wanted if wanted else not gain,
        "type": lambda wanted: gain.get("type") in wanted,
        "name": lambda wanted: naming.get("name") in wanted,
        "role": lambda wanted: naming.get("role") in wanted,
        "owner": lambda wanted: str(naming.get("owner", "")).startswith(tuple(wanted)),
        "bounded": lambda wanted: (naming.get("most") is not None) == wanted,
        "holder": lambda wanted: any(
            part["role"] in _HOLDING and part["owner"].startswith(tuple(wanted)) for part in gain.get("path", ())
        ),
        "elements": lambda wanted: any(bases.get(name, 0.0) >= MOST_OF for name in wanted),
        "traits": lambda wanted: set(traits) >= set(wanted),
        "heaviest": lambda wanted: _heaviest(gain.get("weight", {})) in wanted,
        "nodes": lambda wanted: bool(gain.get("nodes")) == wanted,
        "views": lambda wanted: bool(gain.get("views")) == wanted,
        "never": lambda _: False,
        "component": lambda wanted: grounds.component in wanted,
        "follows": lambda wanted: grounds.follows in wanted,
        "new_sizes": lambda wanted: grounds.new_sizes == wanted,
        "arrays": lambda wanted: bool(gain.get("arrays")) == wanted,
        "recompiled": lambda wanted: grounds.recompiled == wanted,
        "cached": lambda wanted: grounds.cached == wanted,
        "recorded": lambda wanted: grounds.recorded == wanted,
    }
    return all(tests[name](wanted) for name, wanted in when.items())


def _heaviest(weight: Mapping[str, float]) -> str | None:
    """The kind of memory that makes up most of a gain; None if it has no size."""
    name = max(weight, key=lambda part: weight[part], default=None)
    return name if name is not None and weight[name] > 0 else None


_HOLDING = frozenset(("attribute", "class attribute", "element"))
"""Ways of holding in which the owner is a type: the others name modules and functions."""
