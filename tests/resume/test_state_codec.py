"""States become JSON and tensors, and are read again to the bit; what would not be exact is refused."""

import json
import random
from collections import Counter, OrderedDict, defaultdict, deque
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from holdwater.errors import ConfigError
from holdwater.resume.state_codec import decode, encode, set_state, state_of

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
STATES = st.recursive(
    PLAIN,
    lambda parts: (
        st.lists(parts)
        | st.tuples(parts, parts)
        | st.dictionaries(st.text() | st.integers() | st.booleans(), parts)
    ),
    max_leaves=20,
)


def there_and_back(value: object) -> Any:
    """Write a value as a checkpoint does, and read it."""
    tensors: dict[str, Tensor] = {}
    stored = json.loads(json.dumps(encode(value, "thing", tensors)))
    return decode(stored, tensors)


class Pair(NamedTuple):
    """Two things."""

    one: int
    other: str


class Colour(IntEnum):
    """A number with a name: the name would be lost."""

    RED = 1


class TestRoundTrip:
    """What is read is what was written, by value and by type."""

    @given(STATES)
    def test_of_numbers_texts_and_what_holds_them(self, state: object) -> None:
        """Keys keep their types, and tuples are no lists."""
        found = there_and_back(state)

        assert (found, repr(found)) == (state, repr(state))

    @pytest.mark.parametrize(
        "tensor",
        [
            torch.tensor(3.5),
            torch.zeros(0, 3),
            torch.arange(6, dtype=torch.bfloat16).reshape(2, 3).T,
            torch.tensor([float("nan"), float("inf"), -0.0]),
            torch.tensor([True, False]),
        ],
        ids=["no dimension", "empty", "transposed", "special numbers", "bool"],
    )
    def test_of_tensors(self, tensor: Tensor) -> None:
        """Type, shape and bits."""
        found = there_and_back({"a": tensor})["a"]

        assert (found.dtype, found.shape, found.device) == (tensor.dtype, tensor.shape, tensor.device)
        assert torch.equal(
            found.contiguous().view(-1).view(torch.uint8), tensor.contiguous().view(-1).view(torch.uint8)
        )

    @pytest.mark.parametrize(
        "array",
        [np.arange(6, dtype=">i2").reshape(3, 2).T, np.array(2.5), np.zeros((0, 2)), np.array([1j, 2])],
        ids=["turned bytes", "no dimension", "empty", "complex"],
    )
    def test_of_arrays(self, array: Any) -> None:
        """One that can be written to, as before."""
        found = there_and_back([array])[0]

        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert np.array_equal(found, array)
        assert found.flags.writeable

    @pytest.mark.parametrize("scalar", [np.float32(0.1), np.int64(-3), np.bool_(True)], ids=str)  # noqa: FBT003
    def test_of_numbers_of_numpy(self, scalar: Any) -> None:
        """They stay numbers of their type."""
        found = there_and_back(scalar)

        assert (type(found), found) == (type(scalar), scalar)

    def test_of_ordered_dictionaries(self) -> None:
        """A model's state is one."""
        found = there_and_back(OrderedDict(b=1, a=2))

        assert type(found) is OrderedDict
        assert list(found.items()) == [("b", 1), ("a", 2)]
        assert type(there_and_back({"b": 1})) is dict

    @pytest.mark.parametrize(
        "value",
        [
            Counter("aab"),
            defaultdict(list, a=[1]),
            defaultdict(None, a=1),
            deque([1, 2, 3], maxlen=3),
            Pair(1, "two"),
            torch.Size([2, 3]),
        ],
        ids=["counter", "default", "no default", "deque", "named", "size"],
    )
    def test_of_special_containers(self, value: Any) -> None:
        """With what is peculiar to each."""
        found = there_and_back({"part": value})["part"]

        assert (type(found), found) == (type(value), value)
        for name in ("default_factory", "maxlen"):
            assert getattr(found, name, None) == getattr(value, name, None)

    def test_of_the_order_in_memory(self) -> None:
        """The last bit of a sum depends on it."""
        array, tensor = np.asfortranarray(np.ones((2, 3))), torch.ones(2, 3).T

        found = there_and_back([array, tensor])

        assert found[0].flags.f_contiguous
        assert found[1].stride() == tensor.stride()

    def test_of_parts_whose_places_have_the_same_name(self) -> None:
        """A key that holds a dot; each keeps its own tensor."""
        state = {"a": {"b": torch.tensor(1)}, "a.b": torch.tensor(2), 1: torch.tensor(3), "1": torch.tensor(4)}

        found = there_and_back(state)

        assert [int(part) for part in (found["a"]["b"], found["a.b"], found[1], found["1"])] == [1, 2, 3, 4]

    def test_what_shares_its_memory_is_copied(self) -> None:
        """A tensor that changes afterwards does not change what was kept."""
        tensors: dict[str, Tensor] = {}
        weight = torch.ones(3)
        encode([weight, weight[:2]], "thing", tensors)
        weight.zero_()

        assert [tensor.tolist() for tensor in tensors.values()] == [[1, 1, 1], [1, 1]]
        assert list(tensors) == ["thing.0", "thing.1"]


class TestRefusal:
    """What could not be read again as it was."""

    @pytest.mark.parametrize(
        ("value", "words"),
        [
            ({1, 2}, "state.part is a builtins.set, which cannot be kept exactly"),
            (Path("x"), "pathlib"),
            (np.array([object()]), "state.part is a numpy.ndarray"),
            (np.datetime64("2026-01-01"), "state.part is a numpy.datetime64"),
            (Colour.RED, "Colour, which cannot be kept exactly"),
            (b"bytes", "state.part is a builtins.bytes"),
            (defaultdict(lambda: 1), "state.part is a defaultdict of <function"),
            (type("Kind", (dict,), {})(), "Kind, which cannot be kept exactly"),
        ],
        ids=[
            "set",
            "path",
            "array of objects",
            "date",
            "enumeration",
            "bytes",
            "a function",
            "a kind of dictionary",
        ],
    )
    def test_names_the_part(self, value: object, words: str) -> None:
        """And its type."""
        with pytest.raises(ConfigError, match=words):
            encode({"part": value}, "state", {})

    @pytest.mark.parametrize(
        ("thing", "words"),
        [
            (3, r"resumable\('name', ...\) was given a builtins.int, which has no state_dict and load_state_dict"),
            (torch.utils.data.DataLoader([1]), "for batch in holdwater.batches"),  # type: ignore[arg-type]
        ],
        ids=["a number", "a loader"],
    )
    def test_names_what_has_no_state(self, thing: object, words: str) -> None:
        """And for a loader what to write."""
        with pytest.raises(ConfigError, match=words):
            state_of(thing, "name")

    @pytest.mark.parametrize("name", ["state_dict", "load_state_dict"])
    def test_needs_both_ways(self, name: str) -> None:
        """A state that can be read but not put back, and the other way round."""
        with pytest.raises(ConfigError, match="has no state_dict and load_state_dict"):
            state_of(type("Half", (), {name: dict})(), "name")


class TestThings:
    """States are read from objects and put back into them."""

    @pytest.mark.parametrize(
        ("thing", "draw"),
        [
            (random.Random(1), lambda thing: thing.random()),  # noqa: S311
            (np.random.default_rng(1), lambda thing: float(thing.random())),
            (torch.Generator().manual_seed(1), lambda thing: torch.rand(3, generator=thing).tolist()),
        ],
        ids=["Python", "NumPy", "PyTorch"],
    )
    def test_a_generator_goes_on_where_it_was(self, thing: Any, draw: Any) -> None:
        """After other numbers were drawn."""
        draw(thing)
        state = there_and_back(state_of(thing, "order"))
        expected = draw(thing)
        draw(thing)

        set_state(thing, "order", state)

        assert draw(thing) == expected

    def test_a_dictionary_is_refilled_in_place(self) -> None:
        """The script's own variable sees it; what came later is gone."""
        progress: dict[str, Any] = {"seen": 3, "best": (1, 0.5)}
        state = there_and_back(state_of(progress, "progress"))
        progress.update(seen=9, later=True)

        set_state(progress, "progress", state)

        assert progress == {"seen": 3, "best": (1, 0.5)}

    def test_what_a_dictionary_holds_is_restored_in_place(self) -> None:
        """The script may hold it elsewhere too; each kind keeps its own ways."""
        seen, order, weights, rows = Counter("aab"), OrderedDict(b=1, a=2), torch.ones(3), deque([1, 2], maxlen=2)
        progress: dict[str, Any] = {"seen": seen, "order": order, "weights": weights, "rows": rows}
        state = there_and_back(state_of(progress, "progress"))
        seen["c"] += 7
        order.pop("b")
        weights.zero_()
        rows.append(3)

        set_state(progress, "progress", state)

        assert (seen, list(order.items()), rows) == (Counter("aab"), [("b", 1), ("a", 2)], deque([1, 2]))
        assert weights.tolist() == [1, 1, 1]
        assert progress["weights"] is weights

    def test_what_is_held_twice_is_refused(self) -> None:
        """It would become two."""
        rows = [1]

        with pytest.raises(ConfigError, match=r"progress.b and progress.a are the same object"):
            state_of({"a": rows, "b": rows}, "progress")

    def test_an_optimizer_goes_on_exactly(self) -> None:
        """Its moments, its step count and its settings."""
        model = torch.nn.Linear(3, 1)
        one, other = (torch.optim.AdamW(model.parameters(), lr=rate) for rate in (0.1, 0.5))
        model(torch.ones(2, 3)).sum().backward()
        one.step()

        set_state(other, "optimizer", there_and_back(state_of(one, "optimizer")))

        assert str(other.state_dict()) == str(one.state_dict())
