"""What has grown between two counts of this very process, and under which name."""

import gc
import io
import itertools
import mmap
import queue
import typing
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from holdwater.attribution import mapped, paths
from holdwater.attribution.census import CensusTaker
from holdwater.attribution.gain import Gain
from holdwater.attribution.gains import Gains, _is_noise, _let_go, _that_live
from holdwater.attribution.links import PathPart
from holdwater.attribution.weights import Weight

if TYPE_CHECKING:
    from holdwater.attribution.measured import Row

torch = pytest.importorskip("torch")


class State:
    """Holds the one before it."""

    def __init__(self, previous: "State | None") -> None:
        self.previous = previous
        self.rows = bytearray(10_000)


class Injector:
    """Adds noise to what a layer returns."""

    def __init__(self, layer: Any) -> None:
        self.noise = bytearray(10_000)
        layer.register_forward_hook(self.add)

    def add(self, layer: Any, given: Any, returned: Any) -> Any:
        """A hook."""
        return returned


KEPT: dict[str, Any] = {}


@pytest.fixture
def namespace() -> Iterator[dict[str, Any]]:
    """What the test keeps; emptied again."""
    KEPT.clear()
    yield KEPT
    KEPT.clear()


def grow(make: Any, count: int = 40) -> list[Gain]:
    """Count, do something so many times, and compare."""
    counter, gains = CensusTaker(), Gains()
    counter.take(1, note=gains.remember)
    for number in range(count):
        make(number)
    counter.take(2, note=gains.compare)
    assert len(gains.growing) == sum(gain.kind == "container" for gain in gains.found)
    found = gains.found
    gains.forget()
    assert not gains.growing
    return found


def named(found: list[Gain], name: str) -> Gain:
    """The gain of this name."""
    (gain,) = (gain for gain in found if gain.naming is not None and gain.naming.name == name)
    return gain


class TestReports:
    """Containers, graphs behind names, values, instances."""

    def test_lists_of_which_each_has_gained_one(self, namespace: dict[str, Any]) -> None:
        """Four that grow in turn, between two counts that lie four steps apart."""
        parts = {key: [bytes(50_000)] for key in range(4)}
        namespace["parts"] = parts

        found = grow(lambda number: parts[number].append(bytes(60_000 + number)), count=4)

        assert sum(gain.weight.python for gain in found if gain.count == 1 and gain.type == "list") > 240_000

    @pytest.mark.parametrize("way", ["default", "closure"])
    def test_a_list_of_functions(self, namespace: dict[str, Any], way: str) -> None:
        """Hooks, each of which holds a batch."""
        hooks: list[Any] = []
        namespace["hooks"] = hooks

        def add(number: int) -> None:
            batch = bytes(100_000 + number)
            hooks.append((lambda held=batch: held) if way == "default" else (lambda: batch))

        gain = named(grow(add), "hooks")
        assert (gain.count, gain.type) == (40, "list")
        assert gain.weight.python == pytest.approx(40 * 100_000, rel=0.05)

    def test_a_list_of_tensors(self) -> None:
        """By its name, with the bytes of the storages."""
        rows: list[Any] = []

        found = grow(lambda _: rows.append(torch.ones(1000)))

        gain = named(found, "rows")
        assert (gain.kind, gain.type, gain.count) == ("container", "list", 40)
        assert gain.weight.tensors == pytest.approx(160_000, rel=0.05)

    def test_a_view_keeps_its_base(self) -> None:
        """The whole storage counts, and it is said."""
        rows: list[Any] = []

        gain = named(grow(lambda _: rows.append(torch.ones(100, 100)[0])), "rows")

        assert gain.views
        assert gain.weight.tensors == pytest.approx(1_600_000, rel=0.05)

    def test_a_sum_that_carries_its_graph(self) -> None:
        """No container grows: the name does."""
        weight = torch.ones(3, requires_grad=True)
        total = torch.zeros(3)

        def add(_: int) -> None:
            nonlocal total
            total = total + weight * 2

        gain = named(grow(add), "total")
        assert gain.kind == "graph"
        assert gain.nodes >= 40

    def test_a_sum_whose_graph_is_too_large_to_be_followed(self) -> None:
        """Only what was added to it is: 20,000 nodes were there before; the weights that each saves are old."""
        weight = torch.nn.Parameter(torch.ones(100_000))
        total = torch.zeros(1)

        def add(_: int) -> None:
            nonlocal total
            total = total + (weight[:10] * weight[10:20]).sum()

        for number in range(5000):
            add(number)

        gain = named(grow(add), "total")
        assert gain.kind == "graph"
        assert 160 <= gain.nodes <= 320
        assert gain.weight.tensors < 100_000

    def test_a_sum_in_a_dictionary_of_totals(self, namespace: dict[str, Any]) -> None:
        """By the dictionary's name, though that gets no longer."""
        weight = torch.ones(3, requires_grad=True)
        totals = {"train": torch.zeros(3), "best": 0}
        namespace["totals"] = totals

        def add(_: int) -> None:
            totals["train"] = totals["train"] + weight * 2

        gain = named(grow(add), "totals")
        assert gain.kind == "graph"
        assert gain.nodes >= 40

    def test_gradients_whose_graphs_own_their_weights(self) -> None:
        """Each weight that is made anew stays with its gradient, though no name leads to it."""

        def add(_: int) -> None:
            weight = torch.nn.Parameter(torch.ones(1000))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                (weight**2).sum().backward(create_graph=True)

        found = grow(add)
        for item in gc.get_objects():  # else they stay for the tests that follow
            if type(item) is torch.nn.Parameter and item.grad is not None and item.grad.grad_fn is not None:
                item.grad = None

        gain = named(found, "grad")
        assert gain.kind == "gradients"
        assert gain.count == 40
        assert gain.weight.tensors >= 40 * 8000

    def test_ignores_gradients_without_a_graph(self, namespace: dict[str, Any]) -> None:
        """Those of any training: the weights live as long as their names."""
        layers: list[Any] = []
        namespace["layers"] = layers

        def add(_: int) -> None:
            weight = torch.nn.Parameter(torch.ones(1000))
            (weight**2).sum().backward()
            layers.append(weight)

        assert all(gain.kind != "gradients" for gain in grow(add))

    def test_mappings_behind_what_is_kept(self) -> None:
        """Shared pages are no part of a list's own weight, wherever in its elements they lie."""
        blocks: list[Any] = []

        gain = named(grow(lambda number: blocks.append({"number": (number, mmap.mmap(-1, 1 << 20))})), "blocks")

        assert gain.files == pytest.approx(40 << 20, rel=0.01)
        assert gain.weight.total < 1 << 20

    def test_a_tensor_in_shared_memory(self) -> None:
        """Its storage lies there once, however many tensors show it."""
        rows: list[Any] = []

        gain = named(grow(lambda _: rows.append(list(torch.ones(1000).share_memory_()[:8].split(4)))), "rows")

        assert gain.files == pytest.approx(160_000, rel=0.01)

    def test_tensors_of_a_mapped_checkpoint(self, tmp_path: Path) -> None:
        """Their pages are the file's."""
        states: list[Any] = []
        torch.save({"weight": torch.ones(100_000)}, tmp_path / "state.pt")

        def load(_: int) -> None:
            """Map the file once more; the mappings that an earlier count has read are old then."""
            states.append(torch.load(tmp_path / "state.pt", mmap=True))
            mapped._ranges.cache_clear()

        gain = named(grow(load), "states")

        assert gain.files == pytest.approx(40 * 400_000, rel=0.1)  # one may lie where an older storage lay
        assert gain.weight.tensors == 0

    def test_tensors_of_a_checkpoint_that_was_read(self, tmp_path: Path) -> None:
        """These are the process's own."""
        states: list[Any] = []
        torch.save({"weight": torch.ones(100_000)}, tmp_path / "state.pt")

        gain = named(grow(lambda _: states.append(torch.load(tmp_path / "state.pt"))), "states")

        assert gain.files == 0
        assert gain.weight.tensors == pytest.approx(40 * 400_000, rel=0.1)

    def test_a_text_and_an_array_that_are_added_to(self, namespace: dict[str, Any]) -> None:
        """By their names."""
        text = "x" * 2000

        def add(_: int) -> None:
            nonlocal text
            text += "y" * 500

        assert named(grow(add), "text").weight.python == pytest.approx(20_000, rel=0.01)
        assert namespace == {}

    def test_a_chain_of_objects(self, namespace: dict[str, Any]) -> None:
        """Only its newest is held by a name; the attribute holds the others."""
        namespace["state"] = None

        def add(_: int) -> None:
            namespace["state"] = State(namespace["state"])

        gain = named(grow(add), "previous")
        assert gain.kind == "instances"
        assert gain.count >= 30
        assert gain.weight.total == pytest.approx(gain.count * 10_000, rel=0.1)

    def test_objects_whose_newest_is_still_in_use(self, namespace: dict[str, Any]) -> None:
        """By what keeps the others, not by the variable of the newest."""
        namespace["head"] = torch.nn.Linear(2, 2)

        def add(_: int) -> None:
            namespace["in use"] = [Injector(namespace["head"]) for _ in range(4)]

        found = grow(add)

        (gain,) = (one for one in found if one.type == "Injector")
        assert gain.naming is not None
        assert gain.naming.name == "_forward_hooks"

    def test_elements_that_lead_to_very_many_objects(self, namespace: dict[str, Any]) -> None:
        """Some are weighed whole, and stand for the others."""
        rows: list[Any] = []
        namespace["rows"] = rows

        def add(number: int) -> None:
            rows.append(tuple({"row": row, "text": f"{number} {row}"} for row in range(1000)))

        each = 1000 * (184 + 56) + 8856  # a dictionary, its text, and its place in the list
        assert named(grow(add), "rows").weight.python == pytest.approx(40 * each, rel=0.2)

    def test_open_files_behind_what_is_kept(self, namespace: dict[str, Any], tmp_path: Path) -> None:
        """One for each record, however deep it lies in it."""
        records: list[Any] = []
        (tmp_path / "log").touch()
        namespace["records"] = records

        gain = named(
            grow(lambda number: records.append({"log": (number, (tmp_path / "log").open("rb"))})), "records"
        )

        assert gain.handles == 40
        for record in records:
            record["log"][1].close()

    def test_a_light_list_beside_what_we_gain_ourselves(
        self, namespace: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A table of ours, or of the interpreter's, that grows by far more explains nothing, and hides nothing."""
        numbers = namespace["numbers"] = []
        monkeypatch.setattr(mapped, "_table", {number: [] for number in range(-200, 0)}, raising=False)

        def add(number: int) -> None:
            numbers.append(100_000 + number)
            vars(mapped)["_table"][number] = [0] * 6000

        assert named(grow(add), "numbers").count == 40

    def test_descriptors_behind_tensors_of_shared_memory(self, namespace: dict[str, Any]) -> None:
        """As loader workers send them: each storage has one; tensors of this process have none."""
        shared, own = namespace["shared"], namespace["own"] = [], []

        def add(number: int) -> None:
            shared.append(torch.full((4,), number).share_memory_())
            shared.append(shared[-1][:2])
            own.append(torch.full((4,), number))

        gains = grow(add)

        assert named(gains, "shared").handles == 40
        assert named(gains, "own").handles == 0

    @pytest.mark.parametrize("make", [io.StringIO, io.BytesIO])
    def test_a_stream_in_memory(self, namespace: dict[str, Any], make: Callable[[], Any]) -> None:
        """By what was written to it."""
        stream = namespace["stream"] = make()
        line = "x" * 10_000 if make is io.StringIO else b"x" * 10_000

        stream.write(line)
        gains = grow(lambda _: stream.write(line))

        assert named(gains, "stream").weight.python == pytest.approx(400_000, rel=0.3)

    def test_what_waits_in_a_branch_of_tee(self, namespace: dict[str, Any]) -> None:
        """In the one that stands still, not in the one that is read."""
        ahead, behind = itertools.tee(torch.ones(1000) for _ in range(10_000))
        namespace["ahead"], namespace["behind"] = ahead, behind
        list(itertools.islice(ahead, 600))

        gains = grow(lambda _: list(itertools.islice(ahead, 57)))

        assert named(gains, "behind").weight.total == pytest.approx(40 * 57 * 4100, rel=0.2)
        assert not any(gain.naming is not None and gain.naming.name == "ahead" for gain in gains)

    def test_a_queue_by_its_own_name(self) -> None:
        """Not by the deque in it."""
        items: queue.Queue[bytes] = queue.Queue()

        found = grow(lambda number: items.put(bytes(10_000 + number)))  # what is light is not named beside others

        assert named(found, "items").type == "deque"


class TestLetsGo:
    """What is held for naming is held no longer than by others."""

    def test_of_what_nobody_else_holds(self) -> None:
        """A container that the program has dropped between two turns."""
        gain = Gain("container", "list", 1, Weight())
        rows: list[Row] = [(gain, [1, 2], None)]

        _let_go(rows, 0)

        assert rows[0][1] is None

    def test_not_of_what_has_a_name(self) -> None:
        """One reference of the program's own is enough."""
        gain, kept = Gain("container", "list", 1, Weight()), [1, 2]
        rows: list[Row] = [(gain, kept, None)]

        _let_go(rows, 0)

        assert rows[0][1] is kept

    def test_what_is_gone_takes_no_part(self) -> None:
        """It may have had the place of a list that was counted before, and would take what a name keeps."""
        gone, named_value = Gain("container", "list", 3, Weight()), Gain("rebound", "array", 1, Weight())
        kept = [1, 2]
        rows: list[Row] = [
            (gone, [1, 2], None),
            (gone, kept, None),
            (named_value, None, PathPart("global", "total", "__main__")),
        ]

        assert [(row[1] is kept, row[2] is not None) for row in _that_live(rows)] == [(True, False), (False, True)]


class TestIgnores:
    """What did not grow, and what is nobody's fault."""

    def test_a_list_that_is_replaced(self) -> None:
        """Forty lists, one at a time."""
        rows: list[int] = []

        def replace(number: int) -> None:
            nonlocal rows
            rows = [number]

        assert [gain for gain in grow(replace) if gain.naming is not None and gain.naming.name == "rows"] == []

    def test_what_is_next_to_nothing_beside_another(self, namespace: dict[str, Any]) -> None:
        """A list of numbers beside one of 40 MB: who holds it is not sought."""
        heavy: list[bytes] = []
        light: list[int] = []
        namespace["heavy"], namespace["light"] = heavy, light

        def add(number: int) -> None:
            heavy.append(bytes(1_000_000 + number))
            light.append(number)

        found = {gain.naming.name for gain in grow(add) if gain.naming is not None}
        assert "heavy" in found
        assert "light" not in found

    def test_what_has_stopped_growing(self, namespace: dict[str, Any]) -> None:
        """It was found at the count before, and is not watched any more."""
        rows: list[bytes] = []
        namespace["rows"] = rows
        counter, gains = CensusTaker(), Gains()
        counter.take(1, note=gains.remember)
        rows += [bytes(100_000 + number) for number in range(40)]
        counter.take(2, note=gains.compare)
        before = [item for item in gains.growing if item is rows]
        counter.take(3, note=gains.compare)

        assert len(before) == 1
        assert all(item is not rows for item in gains.growing)

    def test_notes_of_abstract_classes(self) -> None:
        """Which classes were asked for: they grow by one with each."""
        part = PathPart("class attribute", "_abc_impl", "collections.abc.Mapping", "abc.py")

        assert _is_noise(paths.HoldingPath((part,)))
        assert not _is_noise(paths.HoldingPath((PathPart("attribute", "rows", "__main__.Trainer", "train.py"),)))

    def test_a_large_graph_that_is_made_anew(self) -> None:
        """The loss of a deep model has 10,000 nodes in each step, and all of them are new."""
        weight = torch.ones(3, requires_grad=True)
        loss = torch.zeros(3)

        def compute(_: int) -> None:
            nonlocal loss
            loss = weight * 2
            for _ in range(10_000):
                loss = loss + 1

        compute(0)

        found = grow(compute, count=2)
        assert [gain for gain in found if gain.naming is not None and gain.naming.name == "loss"] == []

    def test_tables_of_the_interpreter(self) -> None:
        """Such as what `typing` caches."""
        found = grow(lambda number: typing.Literal[number + 1_000_000])

        assert [gain for gain in found if gain.naming is not None and gain.naming.owner == "typing"] == []
