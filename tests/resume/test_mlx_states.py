"""Tests of states of MLX: kept and restored to the bit, in place, and missing ones noticed."""

from typing import Any

import pytest

from holdwater.random_states import random_states, restore_random_states
from holdwater.resume import mlx_states
from holdwater.resume.fingerprint import Fingerprint
from holdwater.resume.state_codec import Tensors, decode, encode, set_state, state_of
from holdwater.resume.unregistered import kept_with, structure

mx = pytest.importorskip("mlx.core", reason="MLX is not installed")
nn = pytest.importorskip("mlx.nn")
optimizers = pytest.importorskip("mlx.optimizers")
utils = pytest.importorskip("mlx.utils")


def stored_and_read(state: Any) -> Any:
    """A state as another process reads it."""
    tensors: Tensors = {}
    return decode(encode(state, "state", tensors), tensors)


def trained(model: Any, optimizer: Any, *, steps: int) -> None:
    """Train a model in place."""

    def loss(model: Any, rows: Any) -> Any:
        """Of the rows."""
        return (model(rows) ** 2).mean()

    gradient = nn.value_and_grad(model, loss)
    for _ in range(steps):
        _, gradients = gradient(model, mx.random.normal((4, 8)))
        optimizer.update(model, gradients)
        mx.eval(model.parameters(), optimizer.state)


def arrays_of(tree: Any) -> dict[str, list[float]]:
    """The numbers of a tree of arrays."""
    return {name: array.tolist() for name, array in utils.tree_flatten(tree)}


class TestArrays:
    """By their bytes."""

    @pytest.mark.parametrize("kind", ["float32", "bfloat16", "float16", "int8", "uint32", "bool_", "complex64"])
    def test_an_array_of_each_kind_comes_back_to_the_bit(self, kind: str) -> None:
        """NumPy has no bfloat16, so bytes are kept."""
        array = mx.array([[0.5, -1.25, 3.0], [1e-3, 7.0, 0.0]]).astype(getattr(mx, kind))

        found = stored_and_read({"rows": array})["rows"]

        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert mx.array_equal(found, array)

    @pytest.mark.parametrize("shape", [(), (0, 3), (1,)])
    def test_shapes_without_or_with_one_value(self, shape: tuple[int, ...]) -> None:
        """A step counter has no dimension."""
        found = stored_and_read(mx.zeros(shape) + 7)

        assert found.shape == shape
        assert (found == 7).all()

    def test_is_compared_by_its_content(self) -> None:
        """An average that the loop keeps and nobody registers is noticed."""
        before = Fingerprint(()).take({"average": mx.array([1.0, 2.0])})

        assert before == Fingerprint(()).take({"average": mx.array([1.0, 2.0])})
        assert before != Fingerprint(()).take({"average": mx.array([1.0, 2.5])})


class TestModulesAndOptimizers:
    """Restored in place: a compiled step keeps what it was given."""

    def test_training_goes_on_to_the_bit(self) -> None:
        """Weights, moments, step and random state are all that is needed."""
        mx.random.seed(5)
        model, optimizer = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 1)), optimizers.Adam(1e-2)
        trained(model, optimizer, steps=5)
        kept = stored_and_read({"model": state_of(model, "model"), "optimizer": state_of(optimizer, "optimizer")})
        drawn = {name: part.clone() for name, part in random_states().items()}
        trained(model, optimizer, steps=5)
        expected = arrays_of(model.parameters()), arrays_of(optimizer.state)

        mx.random.seed(99)
        model, optimizer = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 1)), optimizers.Adam(1e-2)
        set_state(model, "model", kept["model"])
        set_state(optimizer, "optimizer", kept["optimizer"])
        restore_random_states(drawn)
        trained(model, optimizer, steps=5)

        assert (arrays_of(model.parameters()), arrays_of(optimizer.state)) == expected

    def test_containers_of_the_state_stay_the_same(self) -> None:
        """`mx.compile(inputs=[model.state, optimizer.state])` holds them."""
        model, optimizer = nn.Linear(8, 1), optimizers.Adam(1e-2)
        trained(model, optimizer, steps=1)
        kept, held = stored_and_read(state_of(optimizer, "optimizer")), optimizer.state
        trained(model, optimizer, steps=1)

        set_state(optimizer, "optimizer", kept)

        assert optimizer.state is held
        assert int(held["step"]) == 1

    def test_keeps_what_is_frozen_and_what_evaluates(self) -> None:
        """Neither is a parameter."""
        model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 1))
        model.layers[0].freeze()
        model.layers[1].eval()
        kept = stored_and_read(state_of(model, "model"))
        model.unfreeze()
        model.train()

        set_state(model, "model", kept)

        assert set(arrays_of(model.trainable_parameters())) == {"layers.1.weight", "layers.1.bias"}
        assert (model.layers[0].training, model.layers[1].training) == (True, False)

    def test_several_optimizers_in_one(self) -> None:
        """Each keeps its own state."""
        model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 1))
        both = optimizers.MultiOptimizer(
            [optimizers.Adam(1e-2), optimizers.SGD(1e-2)], [lambda name, _: name.startswith("layers.0")]
        )
        trained(model, both, steps=2)
        kept = stored_and_read(state_of(both, "optimizer"))
        trained(model, both, steps=2)

        set_state(both, "optimizer", kept)

        assert [int(one.state["step"]) for one in both.optimizers] == [2, 2]

    def test_what_the_state_covers_is_not_asked_for_again(self) -> None:
        """A list of states for a compiled step holds nothing new."""
        model, optimizer = nn.Linear(8, 1), optimizers.Adam(1e-2)
        trained(model, optimizer, steps=1)
        excluded = [*kept_with(model), *kept_with(optimizer)]
        before = Fingerprint(excluded).take({"state": [model.state, optimizer.state]})
        trained(model, optimizer, steps=1)

        excluded = [*kept_with(model), *kept_with(optimizer)]
        assert Fingerprint(excluded).take({"state": [model.state, optimizer.state]}) == before

    def test_an_attribute_of_a_module_that_is_no_array_is_left_out(self) -> None:
        """A counter of the user's in a module is found where it is not kept."""
        model = nn.Linear(8, 1)
        model.calls = 3

        assert dict(mlx_states.left_out(model)) == {".calls": 3}

    def test_a_layer_that_is_added_changes_the_structure(self) -> None:
        """A state of other parameters could not be restored."""
        model = nn.Sequential(nn.Linear(8, 1))
        before = structure(model)
        model.layers.append(nn.Linear(1, 1))

        assert structure(model) != before
