"""Which optimizer's steps are counted, where a program has several."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from holdwater.frameworks.torch_clock import TorchClock  # noqa: E402 - torch may be missing


class CountedSteps:
    """A session that only counts."""

    source = None

    def __init__(self) -> None:
        self.steps = 0

    def step(self, _: str) -> None:
        """One more."""
        self.steps += 1


class Program:
    """Steps optimizers in some order; torch's own hook tells the clock."""

    def __init__(self) -> None:
        self.session = CountedSteps()
        self.clock = TorchClock(self.session)  # type: ignore[arg-type] # it only counts

    def optimizer(self) -> Any:
        """One of its own weight."""
        made = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1)
        made.register_step_post_hook(self.clock._counted)
        return made

    def step(self, optimizer: Any, times: int = 1) -> None:
        """A forward and a backward pass, and a step."""
        for _ in range(times):
            optimizer.param_groups[0]["params"][0].sum().backward()
            optimizer.step()


@pytest.fixture
def program() -> Program:
    """With no optimizer yet."""
    return Program()


def test_counts_each_step_of_one(program: Program) -> None:
    """The usual program."""
    program.step(program.optimizer(), 30)

    assert program.session.steps == 30


@pytest.mark.parametrize("steps", [25, 8])
def test_counts_each_step_of_clients_with_their_own(program: Program, steps: int) -> None:
    """Federated learning, also where a library keeps the former optimizers alive; a few steps are not counted yet."""
    kept = [program.optimizer() for _ in range(20)]

    for optimizer in kept:
        program.step(optimizer, steps)

    assert 20 * steps - 20 < program.session.steps <= 20 * steps


@pytest.mark.parametrize("critics", [1, 3, 5])
def test_counts_one_of_two_that_take_turns(program: Program, critics: int) -> None:
    """Generator and critic: the one that came first, though the other may step more often."""
    generator, critic = program.optimizer(), program.optimizer()

    for _ in range(40):
        program.step(generator)
        program.step(critic, critics)

    assert program.session.steps == 40


def test_counts_the_next_phase(program: Program) -> None:
    """Pretraining, then another optimizer, from its first step on."""
    first, second = program.optimizer(), program.optimizer()

    program.step(first, 50)
    program.step(second, 50)

    assert program.session.steps == 100


def test_ignores_that_each_weight_has_one(program: Program) -> None:
    """Optimizers that step within the backward pass: thirty weights make no steps of their own."""
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(30)]
    for weight in weights:
        optimizer = torch.optim.SGD([weight], lr=0.1)
        optimizer.register_step_post_hook(program.clock._counted)
        weight.register_post_accumulate_grad_hook(lambda _, optimizer=optimizer: optimizer.step())

    for _ in range(40):
        sum(weight.sum() for weight in weights).backward()

    assert program.session.steps == 40
