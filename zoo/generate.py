"""Generate small training programs with known truth: leaks, and look-alikes that share their code.

A program is a mechanism, a holder and a clock; its look-alike is the same with a bound. A hash of the three
decides the half, so no combination occurs in both: what is tuned on one half can be judged on the other.

`python -m zoo.generate --half develop --count 1000 --seed 0 --out DIR`
"""

import argparse
import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zoo.bounds import VERDICTS, Stored, number_kept, prefilled
from zoo.holders import Holder
from zoo.mechanisms import MECHANISMS, Mechanism
from zoo.own_holders import ALL_HOLDERS
from zoo.plans import Axes, Plan, bounds_of, clocks_of, draw_plan
from zoo.skeletons import draw_words
from zoo.writing import Text, write

HALVES = ("develop", "held-out")
FOLLOWS = {"evaluation": "evaluation", "epoch": "epoch", "checkpoint": "checkpoint", "seconds": "seconds"}
WEIGHTS = {"whole": 4, "plateau": 3, "cycle": 2, "restart": 2}
"""Look-alikes that few combinations can have are drawn more often where they can be."""
WORKER_HOLDERS = {
    "list",
    "dict",
    "deque",
    "attribute",
    "class attribute",
    "closure",
    "global",
    "default argument",
    "lru_cache",
    "defaultdict",
    "nested",
}
Key = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Program:
    """A generated program and its label."""

    name: str
    code: str
    label: str
    """TOML, as `zoo/labels.py` reads it."""
    key: Key
    """Mechanism, holder, clock and bound; the bound of a leak is `none`."""
    plan: Plan

    @property
    def leaks(self) -> bool:
        """Whether it leaks."""
        return self.key[3] == "none"


def half_of(mechanism: str, holder: str, clock: str) -> str:
    """The half to which a combination belongs, with all its bounds."""
    return HALVES[hashlib.sha256(f"{mechanism}|{holder}|{clock}".encode()).digest()[0] % 2]


def combinations(half: str) -> list[Key]:
    """All combinations of a half."""
    return [
        (mechanism.name, holder.name, clock, bound)
        for mechanism in MECHANISMS
        for holder, clock in _places(mechanism, half)
        for bound in ("none", *bounds_of(mechanism, holder, clock))
    ]


def generate(seed: int, half: str, count: int) -> list[Program]:
    """Generate programs: a leak, its look-alike, the next leak.

    Args:
        seed: The same seed gives the same text.
        half: `develop` or `held-out`.
        count: How many, look-alikes included.
    """
    programs: list[Program] = []
    places = {mechanism: list(_places(mechanism, half)) for mechanism in MECHANISMS}
    mechanisms = [mechanism for mechanism, found in places.items() if found]
    for index in range(0, count, 2):
        rng = random.Random(f"{seed}|{half}|{index}")  # noqa: S311 - choices, not secrets
        mechanism = rng.choice(mechanisms)
        holder, clock = rng.choice(places[mechanism])
        bounds = bounds_of(mechanism, holder, clock)
        bound = rng.choices(bounds, [WEIGHTS.get(bound, 1) for bound in bounds])[0]
        axes = Axes(mechanism, holder, clock, bound)
        names = [f"{half.replace('-', '')}_{seed}_{number:05d}" for number in (index, index + 1)]
        programs += _pair(rng, axes, (names[0], names[1]))
    return programs[:count]


def _places(mechanism: Mechanism, half: str) -> Iterator[tuple[Holder, str]]:
    """The holders and clocks of a mechanism that belong to a half."""
    for holder in ALL_HOLDERS:
        if not _fits(mechanism, holder):
            continue
        for clock in clocks_of(mechanism, holder):
            if half_of(mechanism.name, holder.name, clock) == half and bounds_of(mechanism, holder, clock):
                yield holder, clock


def _fits(mechanism: Mechanism, holder: Holder) -> bool:
    """Whether the holder can hold what the mechanism makes."""
    if holder.only:
        return mechanism.name in holder.only
    if mechanism.own or (mechanism.worker and holder.name not in WORKER_HOLDERS):
        return False
    return holder.name != "lru_cache" or any(style.pure for style in mechanism.styles)


def _pair(rng: random.Random, axes: Axes, names: tuple[str, str]) -> list[Program]:
    """A leak and its look-alike: one plan, one choice of words, and the holder with and without its bound."""
    plan = draw_plan(rng, axes)
    words = draw_words(rng, plan)
    programs = []
    for name, twin, bound in zip(names, names[::-1], ("none", axes.bound), strict=True):
        text = write(plan, words, _stored(axes, bound), leaks=bound == "none")
        key = (axes.mechanism.name, axes.holder.name, axes.clock, bound)
        programs.append(Program(name, text.code, _label(axes.mechanism, text, plan, (bound, twin)), key, plan))
    return programs


def _stored(axes: Axes, bound: str) -> Stored:
    """The holder, bounded or not."""
    if bound == "whole":
        return prefilled(axes.mechanism.name)
    if bound == "number" and not axes.mechanism.own:
        return number_kept(axes.holder.write("none"), axes.mechanism.number)
    return axes.holder.write(bound)


def _label(mechanism: Mechanism, text: Text, plan: Plan, bound_and_twin: tuple[str, str]) -> str:
    """The label as TOML."""
    bound, twin = bound_and_twin
    facts = {"verdict": "leak" if bound == "none" else VERDICTS[bound]}
    follows = FOLLOWS.get(plan.clock, "step")
    if bound == "none":
        facts["component"] = mechanism.component
        if plan.clock != "seconds":
            facts["follows"] = follows
    facts |= {"case": "generated", "pair": twin}
    tables = [facts]
    lines = [_table(table) for table in tables]
    if bound == "none" and text.allocated:
        lines.append("[allocated]\n" + _table({"code": text.allocated}))
    if bound == "none":
        lines.append("[held]\n" + _table({"code": text.held, "name": text.name, "kind": text.kind}))
    return "\n".join(lines)


def _table(facts: dict[str, str]) -> str:
    """Keys and texts; a text of JSON is one of TOML."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in facts.items())


def main() -> None:
    """Write programs and labels into a folder."""
    parser = argparse.ArgumentParser(description="Generate training programs with known truth.")
    parser.add_argument("--half", choices=HALVES, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    for program in generate(asked.seed, asked.half, asked.count):
        (asked.out / f"{program.name}.py").write_text(program.code, encoding="utf-8")
        (asked.out / f"{program.name}.toml").write_text(program.label, encoding="utf-8")
    print(f"{asked.count} programs in {asked.out}; {len(combinations(asked.half))} combinations in this half")


if __name__ == "__main__":
    main()
