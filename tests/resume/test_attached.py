"""What users attach to objects of libraries is recorded, since no state holds it; in pairs with what is kept."""

import decimal
import functools
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import ExponentialLR, LambdaLR, LRScheduler, SequentialLR

from holdwater.resume.attached import global_hooks, has_state_of_its_own, on_registered, settings
from holdwater.resume.fingerprint import Fingerprint, Leaves
from holdwater.resume.unregistered import kept_with


def leaves_of(thing: object) -> Leaves:
    """What is attached to a registered object, recorded."""
    return Fingerprint(kept_with(thing)).take(on_registered({"it": thing}))


def differing(thing: object, change: Callable[[Any], object]) -> list[str]:
    """Which parts differ after a change."""
    before = leaves_of(thing)
    change(thing)
    after = leaves_of(thing)
    return [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]


class Counting(torch.optim.SGD):
    """An optimizer of the user's that counts its steps where no state holds them."""

    made = 0

    def step(self, closure: Any = None) -> Any:
        """Count."""
        self.made += 1
        return super().step(closure)


class Stating(Counting):
    """The same, with a state that holds them."""

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return super().state_dict() | {"made": self.made}


def counted() -> Callable[[int], float]:
    """A factor that counts its calls."""
    calls = 0

    def factor(_: int) -> float:
        nonlocal calls
        calls += 1
        return 1 / calls

    return factor


def layer() -> torch.nn.Module:
    """A small network."""
    return torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Dropout(0.5), torch.nn.BatchNorm1d(1))


def optimizer(kind: type[torch.optim.Optimizer] = torch.optim.SGD) -> torch.optim.Optimizer:
    """An optimizer of one parameter."""
    part = torch.nn.Parameter(torch.zeros(1))
    part.grad = torch.ones(1)
    return kind([part], lr=0.1)  # type: ignore[call-arg]


def scheduled(make: Callable[[torch.optim.Optimizer], LRScheduler]) -> LRScheduler:
    """A schedule whose optimizer has made a step."""
    one = optimizer()
    made = make(one)
    one.step()
    return made


def with_gradient_hook() -> torch.nn.Module:
    """A network with a hook that counts."""
    net, calls = layer(), itertools.count(1)
    net[0].weight.register_hook(lambda gradient: gradient / next(calls))  # type: ignore[index]
    return net


def backward(net: torch.nn.Module) -> None:
    """Compute gradients."""
    net(torch.ones(2, 1)).sum().backward()


def with_step_hook() -> torch.optim.Optimizer:
    """An optimizer with a hook that counts."""
    one, calls = optimizer(), {"n": 0}
    one.register_step_post_hook(lambda *_: calls.update(n=calls["n"] + 1))
    return one


FOUND: dict[str, tuple[Any, Any]] = {
    "a setting of a layer": (layer(), lambda it: setattr(it[1], "p", 0.4)),
    "the momentum of a normalisation": (layer(), lambda it: setattr(it[2], "momentum", 0.4)),
    "an attribute of a parameter": (layer(), lambda it: setattr(it[0].weight, "age", 3)),
    "a hook of a parameter": (with_gradient_hook(), backward),
    "a hook of an optimizer": (with_step_hook(), lambda it: it.step()),
    "an attribute of an optimizer of the user's": (optimizer(Counting), lambda it: it.step()),
    "a schedule's function": (scheduled(lambda one: LambdaLR(one, counted())), lambda it: it.step()),
    "a schedule's partial": (
        scheduled(lambda one: LambdaLR(one, functools.partial(lambda seen, _: seen.append(1) or 1.0, []))),
        lambda it: it.step(),
    ),
    "a function of a schedule in a schedule": (
        scheduled(lambda one: SequentialLR(one, [LambdaLR(one, counted()), ExponentialLR(one, 0.9)], [9])),
        lambda it: it.step(),
    ),
}
KEPT: dict[str, tuple[Any, Any]] = {
    "weights and buffers": (layer(), backward),
    "the mode, which is kept beside": (layer(), lambda it: it.eval()),
    "the groups of an optimizer": (optimizer(), lambda it: it.param_groups[0].update(lr=0.5)),
    "the state of an optimizer": (optimizer(torch.optim.Adam), lambda it: it.step()),
    "a schedule's numbers": (scheduled(lambda one: ExponentialLR(one, 0.9)), lambda it: it.step()),
    "an optimizer whose state is compared": (optimizer(Stating), lambda it: it.step()),
}


class TestRegisteredObjects:
    """A registered object carries more than its state holds."""

    @pytest.mark.parametrize("kind", FOUND)
    def test_what_no_state_holds_is_found(self, kind: str) -> None:
        """It differs after the change."""
        assert differing(*FOUND[kind])

    @pytest.mark.parametrize("kind", KEPT)
    def test_what_is_kept_is_not(self, kind: str) -> None:
        """Nothing differs."""
        assert differing(*KEPT[kind]) == []


def test_an_optimizer_with_a_state_of_the_users_making() -> None:
    """Its attributes are compared with that state."""
    assert has_state_of_its_own(optimizer(Stating))
    assert not has_state_of_its_own(optimizer(Counting))
    assert not has_state_of_its_own(optimizer())


def test_hooks_of_all_modules_without_those_of_packages() -> None:
    """A hook of the user's is found; a function that is installed is not."""
    before = global_hooks()
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        assert len(global_hooks()) == len(before) + 1
    finally:
        handle.remove()
    assert global_hooks() == before


SETTINGS: dict[str, tuple[Any, Any]] = {
    "torch.get_default_dtype()": (
        lambda: torch.set_default_dtype(torch.float64),
        lambda: torch.set_default_dtype(torch.float32),
    ),
    "numpy.geterr()": (lambda: np.seterr(under="raise"), lambda: np.seterr(under="ignore")),
    "torch.is_grad_enabled()": (
        lambda: torch.set_grad_enabled(False),
        lambda: torch.set_grad_enabled(True),
    ),
    "decimal.getcontext()": (
        lambda: setattr(decimal.getcontext(), "prec", 9),
        lambda: setattr(decimal.getcontext(), "prec", 28),
    ),
}


class TestSettings:
    """Of the process, from which results follow."""

    @pytest.mark.parametrize("name", SETTINGS)
    def test_a_change_is_found(self, name: str) -> None:
        """And no other setting differs."""
        change, back = SETTINGS[name]
        before = settings()
        change()
        try:
            after = settings()
        finally:
            back()

        assert [one for one in before if before[one] != after[one]] == [name]
        assert settings() == before

    def test_the_working_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Also one that is removed."""
        monkeypatch.chdir(tmp_path)
        assert settings()["os.getcwd()"] == str(tmp_path)
        gone = tmp_path / "gone"
        gone.mkdir()
        os.chdir(gone)
        gone.rmdir()
        assert settings()["os.getcwd()"] is None
