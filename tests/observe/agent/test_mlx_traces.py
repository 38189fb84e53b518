"""For which arguments MLX has traced compiled functions."""

from functools import partial
from typing import Any

import pytest

from holdwater.observe.agent import mlx_traces
from holdwater.observe.agent.mlx_traces import FunctionTraces, traced_again, traces_so_far

mx = pytest.importorskip("mlx.core", reason="MLX is not installed")


@pytest.fixture(autouse=True)
def nothing_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """No other test's functions."""
    monkeypatch.setattr(mlx_traces, "_places", {})


def score(rows: Any, *, factor: int = 1) -> Any:
    """A function of a script."""
    return rows * factor


class TestFunctionTraces:
    """A trace for each shape, type and constant."""

    def test_reports_shapes_that_never_end(self) -> None:
        """The newest arguments differ from those of the trace before."""
        traces = FunctionTraces(partial(score, factor=2))
        for step in range(10):
            traces.note([mx.zeros((step + 1, 4))], step)

        (row,) = traced_again(since=6)
        assert (row["function"], row["often"], row["lately"]) == ("score", 9, 3)
        assert row["guard"] == "the arguments are (9, 4)"
        assert traces_so_far() == 10

    def test_ignores_arguments_that_were_there_before(self) -> None:
        """Three shapes in turn, in trees too; values of arrays do not count."""
        traces = FunctionTraces(score)
        for step in range(30):
            traces.note([{"rows": [mx.full((step % 3 + 1,), step)]}], step)

        assert traces_so_far() == 3
        assert traced_again(since=2)[0]["lately"] == 0

    def test_reports_a_constant_that_changes(self) -> None:
        """A number of Python's is part of the trace."""
        traces = FunctionTraces(score)
        for step in range(5):
            traces.note([mx.zeros(3), 0.1 * step], step)

        assert traces_so_far() == 5

    def test_reports_a_function_that_is_made_again_each_step(self) -> None:
        """It is known by its place in the source."""
        for step in range(8):
            FunctionTraces(score).note([mx.zeros(3)], step)

        assert traced_again(since=0)[0]["often"] == 7
