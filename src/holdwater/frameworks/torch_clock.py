"""Count the steps, epochs, evaluations and checkpoints of a PyTorch script without changing its code.

The clock is the first optimizer that steps, by torch's global post-step hook. Later optimizers are not counted;
one that steps twenty times alone takes over (the first is done, or was replaced), and these steps are counted
then. Once that has happened, five are enough: each client of federated learning has an optimizer of its own.
Several steps after one backward pass count once. A step that a loss scaler skips, and one that a CUDA graph
replays, still counts.
"""

import functools
import sys
import weakref
from collections import UserDict
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from holdwater.attribution.kinds import class_of, is_a, members_of, mro_of, namespace_of, no_overrides
from holdwater.attribution.user_code import is_users
from holdwater.frameworks.loader_workers import hand_over
from holdwater.frameworks.visits import Visits, WorkerVisits
from holdwater.observe.agent.harmless import harmless
from holdwater.observe.agent.session import Session
from holdwater.observe.agent.worker import WorkerAgent
from holdwater.signal_errors import not_the_scripts

if TYPE_CHECKING:
    from collections.abc import Callable

TAKES_OVER, TAKES_OVER_AGAIN = 20, 5
"""Steps that others make alone before one becomes the clock: the first time, and later."""


class TorchClock:
    """Counts the optimizer steps of a session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._first: weakref.ref[Any] | None = None
        self._alone = 0
        """Steps of others since the clock's last one: not counted yet."""
        self._needed = TAKES_OVER
        self._backward = self._backward_of_others = -1
        self._cuda: Any = None
        self._graph_task: Callable[[], int] | None = None
        self._captured = 0
        self._calls = 0
        self._counted = harmless(self._after_step)

    def watch_optimizers(self, module: ModuleType) -> None:
        """Hook every optimizer of torch (module `torch.optim.optimizer`)."""
        module.register_optimizer_step_post_hook(self._counted)

    def _begin(self, torch: Any) -> None:  # noqa: ANN401 - the module, fully loaded by the first step
        """Find the functions that report backward passes and captures."""
        self._graph_task = getattr(torch._C, "_current_graph_task_id", None)  # noqa: SLF001 - it has no public name
        if torch.version.cuda is not None or torch.version.hip is not None:
            self._cuda = torch.cuda

    def _is_capturing(self) -> bool:
        """Whether a CUDA graph is being captured; not asked before the script has begun to use a device.

        A CUDA build raises at that call if the machine has no driver.
        """
        cuda = self._cuda
        return cuda is not None and cuda.is_initialized() and bool(cuda.is_current_stream_capturing())

    def watch_scaler(self, module: ModuleType) -> None:
        """Count the steps that a loss scaler skips (module `torch.amp.grad_scaler`)."""
        original = module.GradScaler.step

        @functools.wraps(original)
        def step(scaler: Any, optimizer: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            """Step, and count if the optimizer did not."""
            before = self._calls
            result = original(scaler, optimizer, *args, **kwargs)
            if self._calls == before:
                self._counted(optimizer, (), {})
            return result

        module.GradScaler.step = step

    def watch_graphs(self, module: ModuleType) -> None:
        """Count the replays of CUDA graphs that contain a step (module `torch.cuda.graphs`)."""
        graph = module.CUDAGraph
        end, replay = graph.capture_end, graph.replay

        @functools.wraps(end)
        def capture_end(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            """End, and record whether a step was captured."""
            note(self)
            return end(self, *args, **kwargs)

        @functools.wraps(replay)
        def counted_replay(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
            """Replay, and count the step that it contains."""
            result = replay(self, *args, **kwargs)
            count(self)
            return result

        note, count = harmless(self._note_capture), harmless(self._count_replay)
        graph.capture_end, graph.replay = capture_end, counted_replay

    def _note_capture(self, graph: Any) -> None:  # noqa: ANN401 - a CUDA graph
        """Record with a graph that steps were captured in it."""
        if self._captured:
            graph._holdwater_steps = self._captured  # noqa: SLF001 - its own
            self._captured = 0

    def _count_replay(self, graph: Any) -> None:  # noqa: ANN401 - a CUDA graph
        """Count the step that a graph contains."""
        if namespace_of(graph).get("_holdwater_steps"):
            self._count()

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:  # noqa: ANN401 - torch's hook
        """Handle an optimizer's step; torch calls this after each."""
        del args, kwargs
        if self._session.source == "holdwater.step":
            return
        if self._calls == 0:
            self._begin(sys.modules["torch"])
        self._calls += 1
        first = None if self._first is None else self._first()
        if first is not None and first is not optimizer:
            task = self._task()
            self._alone += task == -1 or task != self._backward_of_others
            self._backward_of_others = task
            if self._alone < self._needed:
                return
            self._session.steps += self._alone - 1
            self._needed = TAKES_OVER_AGAIN
        if first is not optimizer:
            self._first = weakref.ref(optimizer)
        self._alone = 0
        if self._is_capturing():
            self._captured += 1
            return
        task = self._task()
        if task != -1 and task == self._backward:
            return
        self._backward = task
        self._count()

    def _task(self) -> int:
        """The backward pass that is under way; -1 for none."""
        return -1 if self._graph_task is None else self._graph_task()

    def _count(self) -> None:
        """Count a step of the session."""
        self._session.step("torch")


@dataclass(slots=True)
class _Dataset:
    """A dataset that is iterated."""

    reach: "Callable[[], object | None]" = lambda: None
    """Returns it; None if it was freed."""
    rows: int = 0
    """Its length when it was first iterated; 0 if unknown."""
    seen: Visits | None = None
    """Which rows were visited; None before the first."""
    length: int | None = None
    """None if no sampler has asked for it."""


class Loaders:
    """Counts the epochs of a script's loaders, the first visits of samples, and new shapes of batches."""

    MOST_SHAPES = 10_000
    """Most shapes that are distinguished."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._datasets: dict[int, _Dataset] = {}
        """Live datasets, by their identity."""
        self._rows = 0
        """Rows of all datasets that were iterated, including those that were freed."""
        self._shapes: set[object] = set()
        self._workers = WorkerVisits(session)
        session.datasets = self.datasets

    def datasets(self) -> list[object]:
        """The live datasets that were iterated."""
        return [found for one in list(self._datasets.values()) if (found := one.reach()) is not None]

    def watch(self, module: ModuleType) -> None:
        """Hook all loaders (module `torch.utils.data.dataloader`)."""
        base = module._BaseDataLoaderIter  # noqa: SLF001 - the one method that all loaders share
        next_index, begin, draw = base._next_index, module.DataLoader.__iter__, base.__next__  # noqa: SLF001

        note, take_up, note_shape = harmless(self._note), harmless(self._take_up), harmless(self._note_shape)

        @functools.wraps(next_index)
        def noted_index(iterator: Any) -> Any:  # noqa: ANN401
            """Draw the indices of a batch, and record them."""
            index = next_index(iterator)
            note(iterator, index)
            return index

        @functools.wraps(begin)
        def counted_begin(loader: Any) -> Any:  # noqa: ANN401
            """Begin an epoch."""
            take_up(loader)
            iterator = begin(loader)
            if not self._session.forked:
                self._session.epochs += 1
            return iterator

        @functools.wraps(draw)
        def noted_batch(iterator: Any) -> Any:  # noqa: ANN401
            """Draw a batch, and record its shape."""
            batch = draw(iterator)
            note_shape(batch)
            return batch

        base._next_index, base.__next__ = noted_index, noted_batch  # noqa: SLF001
        module.DataLoader.__iter__ = counted_begin
        self._workers.watch(module)

    def watch_workers(self, module: ModuleType) -> None:
        """Let the workers report what they hold on request (module `torch.utils.data._utils.fetch`)."""
        agent, session = WorkerAgent(self._session), self._session
        for name in ("_MapDatasetFetcher", "_IterableDatasetFetcher"):
            _tick_after(getattr(module, name), agent, session)

    def watch_lengths(self, module: ModuleType) -> None:
        """Record the lengths of datasets that samplers ask for: we never ask a dataset ourselves.

        Args:
            module: `torch.utils.data.sampler` or `torch.utils.data.distributed`.
        """
        note = harmless(self._note_length)

        def noted_length(item: Any) -> int:  # noqa: ANN401 - anything with a length
            """The length of an object."""
            size = len(item)
            note(item, size)
            return size

        module.__dict__["len"] = noted_length

    def _note_length(self, item: object, size: int) -> None:
        """Record the length of a dataset."""
        if not self._session.forked and id(item) in self._datasets:
            self._datasets[id(item)].length = size

    def _note(self, iterator: Any, index: Any) -> None:  # noqa: ANN401 - a loader's own
        """Record first visits of samples."""
        if self._session.forked or not is_a(index, list):
            return
        dataset = iterator._dataset  # noqa: SLF001 - there is no public name
        known = self._datasets.setdefault(id(dataset), _Dataset())
        seen = self._begin(known, dataset) if known.seen is None else known.seen
        self._session.samples_seen += seen.note(index)
        self._workers.begin(iterator, known.rows)
        self._workers.draw(iterator, index)

    def _note_shape(self, batch: Any) -> None:  # noqa: ANN401 - any batch
        """Record whether the shapes of a batch's tensors are new."""
        if self._session.forked or len(self._shapes) >= self.MOST_SHAPES:
            return
        shape = tuple(map(_shape_of, _parts_of(batch)))
        if shape not in self._shapes:
            self._shapes.add(shape)
            self._session.shapes += 1

    def _take_up(self, loader: Any) -> None:  # noqa: ANN401 - a class of torch
        """Keep a weak reference to a loader's dataset, or to the loader if the dataset allows none."""
        dataset = namespace_of(loader).get("dataset")
        if self._session.forked or dataset is None:
            return
        key = id(dataset)
        known = self._datasets.setdefault(key, _Dataset())
        if known.reach() is dataset:
            return
        # another dataset may get its identity; not in Python: what a signal handler raised there would be lost
        forget = functools.partial(self._datasets.pop, key)
        try:
            known.reach = weakref.ref(dataset, forget)
        except not_the_scripts(TypeError):  # such as a list: it lives as long as a loader of it
            reach = weakref.ref(loader, forget)
            known.reach = lambda: namespace_of(reach()).get("dataset")

    def _begin(self, known: _Dataset, dataset: Any) -> Visits:  # noqa: ANN401
        """Begin to record the rows of a dataset."""
        known.rows = _length_of(dataset) if known.length is None else known.length
        known.seen = Visits(known.rows)
        self._rows += known.rows
        self._session.channel.put("samples_total", self._rows)
        return known.seen


def _length_of(dataset: Any) -> int:  # noqa: ANN401 - any dataset
    """The length of a dataset; 0 if only the program's own code knows it, or the dataset is a stream."""
    kind = type(dataset)
    length = next((vars(base)["__len__"] for base in mro_of(kind) if "__len__" in dict(members_of(base))), None)
    code = getattr(length, "__code__", None)
    streams = is_a(dataset, class_of("torch.utils.data", "IterableDataset"))
    return 0 if length is None or streams or (code and is_users(code.co_filename)) else len(dataset)


def _parts_of(batch: Any) -> list[Any]:  # noqa: ANN401 - any batch
    """The tensors of a batch, or whatever it consists of, read without its own methods."""
    if is_a(batch, UserDict):
        batch = namespace_of(batch).get("data")
    if is_a(batch, dict):
        return list(dict.values(batch))
    if is_a(batch, list):
        return list(list.__iter__(batch))
    return list(tuple.__iter__(batch)) if is_a(batch, tuple) else [batch]


def _shape_of(part: Any) -> tuple[int, ...] | None:  # noqa: ANN401 - any object
    """The shape of a tensor or an array; None for anything else."""
    for base in (class_of("torch", "Tensor"), class_of("numpy", "ndarray")):
        if is_a(part, base):
            with no_overrides():
                return tuple(base.shape.__get__(part))
    return None


def _tick_after(kind: Any, agent: WorkerAgent, session: Session) -> None:  # noqa: ANN401 - a class of torch
    """Notify the agent of each batch that a worker makes."""
    original = hand_over(kind.fetch)

    @functools.wraps(kind.fetch)
    def fetch(fetcher: Any, index: Any) -> Any:  # noqa: ANN401
        """Make a batch."""
        data = original(fetcher, index)
        if session.forked:
            agent.tick()
        return data

    kind.fetch = fetch


def watch_modules(session: Session, module: ModuleType, *, flag: str = "training") -> None:
    """Count the evaluations of a script: calls of `eval()`, at most one between two steps.

    Args:
        session: Counts them.
        module: `torch.nn.modules.module`, or MLX's.
        flag: The attribute that says whether a module is in training.
    """
    original = module.Module.eval
    last = [-1]

    @harmless
    def count(module_: Any) -> None:  # noqa: ANN401 - a module
        """Count a module that was in training."""
        training = namespace_of(module_).get(flag) is True
        if training and session.steps != last[0] and session.steps > 0 and not session.forked:
            last[0] = session.steps
            session.evaluations += 1

    @functools.wraps(original)
    def evaluate(self: Any) -> Any:  # noqa: ANN401
        """Set to evaluation, and count it."""
        count(self)
        return original(self)

    module.Module.eval = evaluate


def watch_saving(session: Session, module: ModuleType, name: str) -> None:
    """Count the files that a script saves after its first step, at most one a step (`torch.save` and similar)."""
    original = getattr(module, name)
    last = [-1]

    @functools.wraps(original)
    def save(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Save, and count it."""
        result = original(*args, **kwargs)
        if session.steps != last[0] and session.steps > 0 and not session.forked:
            last[0] = session.steps
            session.checkpoints += 1
        return result

    setattr(module, name, save)


def watch_compiler(session: Session, module: ModuleType) -> None:
    """Read the number of compiled graphs (module `torch._dynamo.utils`)."""
    counters = module.counters
    session.compiles = lambda: counters["stats"]["unique_graphs"] if "stats" in counters else 0
