"""The bars of `vision_speed.py`, and the rows that its programs share."""

from types import SimpleNamespace
from typing import Any

import pytest

from vision_bars import judged
from vision_models import SHAPES, layout, length_of


def run(seconds: float, *, peak: float = 30e9, losses: list[float] | None = None) -> dict[str, Any]:
    """What is known of a run of 3,944 tokens a step."""
    tokens = 3944
    return {
        "seconds": seconds, "tokens": tokens, "tokens_a_second": tokens / seconds, "peak": peak,
        "losses": losses or [],
    }  # fmt: skip


def test_a_bar_is_there_as_soon_as_its_runs_are() -> None:
    """A part of the benchmark can be run alone."""
    ours = {"ours, qwen2.5-vl-7b, eight": run(0.2)}

    assert not judged({})
    assert {what.rpartition(": ")[2] for what in judged(ours)} == {
        "seconds a step and tokens/s", "share of the arithmetic floor"
    }  # fmt: skip


@pytest.mark.parametrize(("seconds", "peak", "reached"), [(0.5, 40e9, True), (0.49, 40e9, False)])
def test_speed_is_compared_with_the_peers(seconds: float, peak: float, reached: bool) -> None:
    """2.5 times TRL's with eight pictures."""
    bars = judged({
        "ours, qwen2.5-vl-7b, eight": run(0.2), "trl, qwen2.5-vl-7b, eight": run(seconds, peak=peak),
    })  # fmt: skip

    assert next(bar for what, bar in bars.items() if what.endswith("times TRL")).reached is reached


def test_memory_is_compared_with_the_most_modest_peer() -> None:
    """Each of the peers may be the one that needs least."""
    runs = {"ours, qwen2.5-vl-7b, one": run(0.2, peak=25e9), "trl, qwen2.5-vl-7b, one": run(2.0, peak=30e9)}

    with_unsloth = judged(runs | {"unsloth, qwen2.5-vl-7b, one": run(2.0, peak=20e9)})

    assert all(bar.reached for bar in judged(runs).values())
    assert [what for what, bar in with_unsloth.items() if not bar.reached] == [
        "Qwen2.5-VL-7B shape, LoRA rank 16, 1 picture a step: reserved device memory at most"
    ]


@pytest.mark.parametrize(("loss", "reached"), [(2.03, True), (2.05, False)])
def test_losses_may_differ_by_twice_what_the_peer_differs_by_from_itself(loss: float, reached: bool) -> None:
    """TRL's own two ways of attention are 0.02 apart here."""
    flags = "qwen2.5-vl-7b, eight, --layers, 8, --pillow"

    (bar,) = judged({
        f"ours, {flags}": run(1, losses=[loss]),
        f"trl, {flags}": run(1, losses=[2.0]),
        f"trl, {flags}, --attention, eager": run(1, losses=[2.02]),
    }).values()

    assert bar.reached is reached


def test_an_example_has_the_tokens_of_its_picture_and_its_text() -> None:
    """640 x 480 pixels are 391 tokens of Qwen2.5-VL and 300 of Qwen3-VL; the text has 100, and two stand around."""
    assert length_of("qwen2.5-vl-7b") == 391 + 102
    assert length_of("qwen3-vl-8b") == 300 + 102


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_row_holds_four_examples_and_not_five(shape: str, small: bool) -> None:
    """So a step of two rows has as many as the peers' batches of eight."""
    options: Any = SimpleNamespace(shape=shape, small=small)
    example = length_of(shape, small=small)

    _, wide = layout(options, "eight")
    _, narrow = layout(options, "one")

    assert 4 * example <= wide < 5 * example
    assert example <= narrow < 2 * example
