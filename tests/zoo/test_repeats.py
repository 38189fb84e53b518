"""The same program again and again: which are chosen, and what counts as the same."""

from dataclasses import replace
from typing import Any

import pytest

from zoo.columns import Event, Plan
from zoo.labels import read_labels
from zoo.repeats import EACH, Answer, agreeing, answer, chosen, has_period


def said(**more: Any) -> dict[str, Any]:
    """What was stored of a run."""
    facts = {"sites": [["held", 7, "kept"], ["allocated", 5, None]], "every_steps": None}
    return {"leak": True, "verdict": "leak", "component": "host.tensors", "error": None, "follows": "step"} | {
        "facts": facts
    } | more  # fmt: skip


def test_ten_of_each_are_chosen_and_always_the_same() -> None:
    """By a hash: their order in the folder says nothing."""
    labels = read_labels("")
    found = chosen(labels)

    assert sum(label.leaks for label in found) == sum(not label.leaks for label in found) == EACH
    assert chosen(labels[::-1]) == found
    assert not any(label.needs_gpu for label in found)


def test_the_first_site_and_the_verdict_must_agree() -> None:
    """Another component or another first site is another answer."""
    one, other = answer({"said": said()}), Answer("leak", "host.python", None)

    assert one == Answer("leak", "host.tensors", "held 7 kept")
    assert agreeing([one, one, other]) == 2
    assert answer({"said": said(leak=False, verdict="flat", component=None)}) == Answer("flat", None, None)


@pytest.mark.parametrize(("every", "follows", "right"), [(20, "step", True), (None, "step", False),
                                                         (40, "step", False), (None, "evaluation", True)])  # fmt: skip
def test_a_period_is_looked_up(every: int | None, follows: str, right: bool) -> None:
    """In steps, or by the clock of the events at which growth comes."""
    plan = Plan(steps=400, event=Event(bytes=1000, every=20))
    found = said(follows=follows) | {"facts": {"every_steps": every}}

    assert has_period(plan, found) is right
    assert has_period(replace(plan, event=Event(bytes=1000)), found) is None
