"""The steps of MLX programs are counted, whatever makes them, and nothing that they compute is changed."""

from typing import TYPE_CHECKING, Any, cast

import pytest

from holdwater.frameworks.mlx_clock import TAKES_OVER, MlxClock
from tests import stand_in_session

if TYPE_CHECKING:
    from holdwater.observe.agent.session import Session

mx = pytest.importorskip("mlx.core", reason="MLX is not installed")
nn = pytest.importorskip("mlx.nn", reason="MLX is not installed")
optim = pytest.importorskip("mlx.optimizers", reason="MLX is not installed")
from mlx.optimizers import optimizers as module  # noqa: E402 - it may be missing


class Counting(stand_in_session.Session):
    """A session whose steps are counted, with what the clock sets."""

    compiles: Any = None

    def step(self, source: str) -> None:
        """Count a step."""
        self.steps += 1
        self.source = source
        super().step(source)


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Counting:
    """A session whose clock watches MLX, which is as it was after the test."""
    for name in ("compile", "grad", "value_and_grad", "eval", "async_eval"):
        monkeypatch.setattr(mx, name, getattr(mx, name))
    for name in ("__init__", "update", "apply_gradients"):
        monkeypatch.setattr(module.Optimizer, name, getattr(module.Optimizer, name))
    found = Counting()
    clock = MlxClock(cast("Session", found))
    clock.watch_optimizers(module)
    clock.watch_core(mx)
    return found


def model() -> Any:
    """A layer, the same each time."""
    mx.random.seed(0)
    return nn.Linear(4, 1)


def loss_of(layer: Any, rows: Any) -> Any:
    """A loss of some rows."""
    return layer(rows).square().mean()


class TestSteps:
    """What counts as one."""

    def test_counts_updates_once(self, session: Counting) -> None:
        """`update` calls `apply_gradients`; evaluations and gradients do not count beside an optimizer."""
        layer, optimizer = model(), optim.Adam(learning_rate=0.1)
        for _ in range(30):
            _, gradients = nn.value_and_grad(layer, loss_of)(layer, mx.ones((2, 4)))
            optimizer.update(layer, gradients)
            mx.eval(layer.parameters(), optimizer.state)

        assert session.steps == 30

    def test_counts_gradients_that_are_applied_without_a_module(self, session: Counting) -> None:
        """A program that keeps its weights in a dictionary."""
        weights, optimizer = {"w": mx.ones(3)}, optim.SGD(learning_rate=0.1)
        for _ in range(5):
            weights = optimizer.apply_gradients({"w": mx.ones(3)}, weights)

        assert session.steps == 5

    def test_counts_calls_of_a_compiled_step_for_each_shape(self, session: Counting) -> None:
        """The update runs only while a call is traced."""
        layer, optimizer = model(), optim.SGD(learning_rate=0.1)
        state = [layer.state, optimizer.state]

        def step(rows: Any) -> Any:
            """One step."""
            loss, gradients = nn.value_and_grad(layer, loss_of)(layer, rows)
            optimizer.update(layer, gradients)
            return loss

        compiled = mx.compile(step, inputs=state, outputs=state)
        for number in range(6):
            mx.eval(compiled(mx.ones((2 + number % 2, 4))), state)

        assert session.steps == 6
        assert session.compiles() >= 2

    def test_another_optimizer_takes_over(self, session: Counting) -> None:
        """The first is done; before, the second of a pair does not count."""
        layers = model(), model()
        first, second = optim.SGD(learning_rate=0.1), optim.SGD(learning_rate=0.1)
        for _ in range(10):
            for layer, optimizer in zip(layers, (first, second), strict=True):
                optimizer.update(layer, {"weight": mx.ones((1, 4))})
        assert session.steps == 10

        for _ in range(TAKES_OVER + 4):
            second.update(layers[1], {"weight": mx.ones((1, 4))})

        assert session.steps == 10 + 6

    def test_an_optimizer_that_is_made_later_takes_over_at_once(self, session: Counting) -> None:
        """A new one for each phase of ten steps, though all are kept."""
        layer, kept = model(), []
        for _ in range(5):
            kept.append(optim.SGD(learning_rate=0.1))
            for _ in range(10):
                kept[-1].update(layer, {"weight": mx.ones((1, 4))})

        assert session.steps == 50

    def test_counts_a_loop_that_updates_by_hand(self, session: Counting) -> None:
        """No optimizer: its gradients are the clock, from the twentieth on."""
        weights = mx.ones((4, 1))
        gradient = mx.grad(lambda weights: (mx.ones((2, 4)) @ weights).square().mean())
        for _ in range(50):
            weights = weights - 0.1 * gradient(weights)
            mx.eval(weights)

        assert session.steps == 50 - TAKES_OVER + 1

    def test_counts_a_loop_that_only_evaluates(self, session: Counting) -> None:
        """A generation; two evaluations in a turn of the loop are one step."""
        for _ in range(50):
            mx.eval(mx.ones(3) + 1)
            mx.async_eval(mx.ones(3) + 2)

        assert session.steps == 50 - TAKES_OVER + 1

    def test_ignores_evaluations_before_training(self, session: Counting) -> None:
        """Once there is an optimizer its updates alone count."""
        layer, optimizer = model(), optim.SGD(learning_rate=0.1)
        for _ in range(100):
            mx.eval(layer(mx.ones((2, 4))))
        optimizer.update(layer, {"weight": mx.ones((1, 4))})

        assert session.steps == 1

    def test_leaves_the_steps_to_a_script_that_counts_its_own(self, session: Counting) -> None:
        """`holdwater.step()` was called."""
        session.source = "holdwater.step"
        optimizer = optim.SGD(learning_rate=0.1)
        optimizer.update(model(), {"weight": mx.ones((1, 4))})

        assert session.steps == 0

    def test_changes_no_result(self, session: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
        """The losses of a watched loop are those of one that is not, to the bit."""

        def losses() -> list[float]:
            """Of twenty steps."""
            layer, optimizer, found = model(), optim.AdamW(learning_rate=0.1), []
            step = nn.value_and_grad(layer, loss_of)
            for number in range(20):
                loss, gradients = step(layer, mx.full((2, 4), number / 7))
                optimizer.update(layer, gradients)
                mx.eval(layer.parameters(), optimizer.state)
                found.append(loss.item())
            return found

        watched = losses()
        assert session.steps == 20
        monkeypatch.undo()

        assert losses() == watched
