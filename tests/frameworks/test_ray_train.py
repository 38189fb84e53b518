"""Tests of the guard for workers of Ray Train, with a stand-in for Ray; `benchmarks/frameworks_other.py` runs Ray."""

import importlib
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

NAME = "holdwater.frameworks.ray_train"


class Ray:
    """A worker's side of Ray Train."""

    def __init__(self, *, rank: int, workers: int) -> None:
        self.reports: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._context = SimpleNamespace(get_world_rank=lambda: rank, get_world_size=lambda: workers)

    def get_context(self) -> Any:
        """Of this worker."""
        return self._context

    def report(self, metrics: dict[str, Any], **named: Any) -> None:
        """Keep a report."""
        self.reports.append((metrics, named))


@pytest.fixture
def ray_train(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the module in a worker of so many."""

    def make(*, rank: int = 0, workers: int = 1) -> tuple[Any, Ray]:
        train, package = Ray(rank=rank, workers=workers), ModuleType("ray")
        package.train = train  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "ray", package)
        monkeypatch.setitem(sys.modules, "ray.train", train)
        monkeypatch.delitem(sys.modules, NAME, raising=False)
        return importlib.import_module(NAME), train

    return make


def test_reports_what_is_in_use_beside_the_programs_own(ray_train: Any) -> None:
    """A name of the program's stays its own; what belongs to Ray is passed on."""
    module, train = ray_train()

    with module.ray_worker_guard() as guard:
        guard.step()
        guard.report({"loss": 0.5, "memory/host_mb": -1}, checkpoint="mine")

    ((metrics, named),) = train.reports
    assert (metrics["loss"], metrics["memory/host_mb"], named) == (0.5, -1, {"checkpoint": "mine"})
    assert metrics["memory/budget_percent"] > 0
    assert "memory/finding" not in metrics


def test_reports_a_finding_with_its_line(ray_train: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one line of text."""
    module, train = ray_train()
    site = {"role": "held", "name": "kept", "file": "/train.py", "line": 7}
    leak = {"verdict": "leak", "component": "host.tensors", "advice": "grows", "sites": [site], "rate": None}

    with module.ray_worker_guard() as guard:
        seen = guard.summary() | {"verdict": "leak", "findings": [leak]}
        monkeypatch.setattr(guard, "_seen", lambda: seen)
        guard.report({})

    assert train.reports[0][0]["memory/finding"] == "leak of host.tensors: grows, held by kept at /train.py:7"


class TestEnd:
    """When a loop ends early."""

    def test_one_worker_ends_at_once(self, ray_train: Any) -> None:
        """There is nobody to ask."""
        module, _ = ray_train()
        with module.ray_worker_guard() as guard:
            taken = [guard.stop("memory is short") if batch == 2 else None for batch in guard.steps(range(9))]

        assert len(taken) == 3

    def test_several_end_after_a_step_that_they_share(self, ray_train: Any) -> None:
        """The sixteenth, though another was short of memory before."""
        module, _ = ray_train(rank=1, workers=2)
        with module.ray_worker_guard() as guard:
            guard.agree = lambda _: True
            taken = list(guard.steps(range(90)))

        assert len(taken) == 16
        assert guard.stop_reason == "another process of the run is short of memory"

    def test_workers_that_cannot_ask_go_on(self, ray_train: Any) -> None:
        """One that left alone would let the others wait for it for ever."""
        module, _ = ray_train(workers=2)
        with module.ray_worker_guard() as guard:
            guard.stop("memory is short")
            taken = list(guard.steps(range(40)))

        assert len(taken) == 40


def test_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Ray the import names the package and its extra."""
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, NAME, raising=False)

    with pytest.raises(ImportError, match=r"pip install ray\[train\]"):
        importlib.import_module(NAME)
