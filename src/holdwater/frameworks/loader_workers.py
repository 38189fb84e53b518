"""Replace a loader worker that has grown by a fresh one, between two batches, without touching the trainer.

The fresh worker reads the same queue and continues with the random states of the old one, so the batches do not
change, as long as the dataset keeps no state that affects them. The old worker stays until its last batch has
arrived: tensors are handed over by the process that made them. For map-style datasets with forked workers.

 Source: PyTorch documentation, `torch.utils.data`, "Multi-process data loading".
"""

import os
import pickle
import signal
import sys
import time
import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

from holdwater.observe.agent.harmless import harmless
from holdwater.observe.agent.protocols import Replaced
from holdwater.random_states import RandomStates
from holdwater.signal_errors import not_the_scripts

LEAST_GROWTH = 16 << 20
"""Bytes that a worker must have grown by to be worth replacing."""
STATES_SIZE = 1 << 16
"""Bytes that are set aside for the random states of a worker, before it is told to leave: several times as many as
they need."""
POLL = 0.01
"""Seconds between two checks of a process that waits for the other."""


class Retirement(NamedTuple):
    """Sent to a worker in place of the indices of a batch: let another one continue."""

    place: str
    """The files of the random states (`.states`), and of the permission to end (`.leave`)."""


@dataclass(slots=True)
class _Handover:
    """A replaced worker whose last batches have not arrived yet."""

    iterator: "weakref.ref[Any]"
    number: int
    old: Any
    place: str
    awaited: frozenset[int]
    """Tasks whose batches have not arrived yet."""
    held: int
    """Private memory of the old worker, in bytes."""
    seconds: float


class LoaderWorkers:
    """The workers of all loaders, in the training process."""

    def __init__(self, folder: Path) -> None:
        """Prepare.

        Args:
            folder: The session's.
        """
        self._folder, self._count = folder, 0
        self._iterators: weakref.WeakSet[Any] = weakref.WeakSet()
        self._at_first: dict[int, int] = {}
        self._under_way: list[_Handover] = []

    def watch(self, module: ModuleType) -> None:
        """Register each loader that starts workers (module `torch.utils.data.dataloader`).

        Args:
            module: The loader's.
        """
        kind: Any = module._MultiProcessingDataLoaderIter  # noqa: SLF001 - there is no public name
        begin, end = kind.__init__, kind._shutdown_workers  # noqa: SLF001

        def noted(iterator: Any, loader: Any) -> None:  # noqa: ANN401 - a loader's own
            """Start the workers, and register the loader."""
            begin(iterator, loader)
            register(iterator)

        def ended(iterator: Any) -> None:  # noqa: ANN401
            """End the replaced workers of this loader with the others."""
            release(iterator)
            end(iterator)

        register, release = harmless(self._iterators.add), harmless(self._release)
        kind.__init__, kind._shutdown_workers = noted, ended  # noqa: SLF001

    def _release(self, iterator: Any) -> None:  # noqa: ANN401 - a loader's own
        """Let the replaced workers of a loader end, and those whose loader is gone."""
        for handover in self._under_way:
            own = handover.iterator()
            if own is None or own is iterator:
                _touch(handover.place + ".leave")

    def growth(self) -> int:
        """Bytes by which the living workers have grown since they were first read."""
        return sum(max(growth, 0) for _, _, growth in self._grown())

    def replace(self) -> bool:
        """Begin to replace the worker that has grown most; False if none has grown enough or can be."""
        grown = max(self._grown(), key=lambda found: found[2], default=None)
        if grown is None or grown[2] < LEAST_GROWTH or self._under_way:
            return False
        iterator, number, _ = grown
        if not can_be_replaced(iterator):
            return False
        began = time.monotonic()
        self._count += 1
        place = str(self._folder / f"retired-{self._count}")
        try:
            Path(place + ".part").write_bytes(bytes(STATES_SIZE))
        except not_the_scripts(OSError):
            return False  # no space for its random states
        old = iterator._workers[number]  # noqa: SLF001 - there is no public access to a loader's workers
        held = private_bytes(old.pid)
        awaited = _outstanding(iterator, number)
        new = _start_successor(iterator, number, place, old.pid)
        iterator._index_queues[number].put((-1, Retirement(place)))  # noqa: SLF001
        iterator._workers[number] = new  # noqa: SLF001
        _tell_signal_handler(iterator, old)
        seconds = time.monotonic() - began
        self._under_way.append(_Handover(weakref.ref(iterator), number, old, place, awaited, held, seconds))
        return True

    def turn(self) -> list[Replaced]:
        """End replaced workers whose last batches have arrived; return what that freed and cost."""
        done = []
        for handover in tuple(self._under_way):
            iterator = handover.iterator()
            if iterator is not None and handover.awaited & _outstanding(iterator, handover.number):
                continue
            _touch(handover.place + ".leave")
            if handover.old.is_alive():
                continue
            if iterator is not None:
                _tell_signal_handler(iterator)
            self._under_way.remove(handover)
            new = None if iterator is None else iterator._workers[handover.number]  # noqa: SLF001
            left = 0 if new is None else private_bytes(new.pid)
            done.append(Replaced(handover.held - left, handover.seconds))
        return done

    def _grown(self) -> list[tuple[Any, int, int]]:
        """Loader, number and growth in bytes of each living worker."""
        found, living = [], set()
        for iterator in tuple(self._iterators):
            for number, worker in enumerate(getattr(iterator, "_workers", ())):
                resident = _resident(worker.pid)
                if resident is None:
                    continue
                living.add(worker.pid)
                found.append((iterator, number, resident - self._at_first.setdefault(worker.pid, resident)))
        for gone in self._at_first.keys() - living:
            del self._at_first[gone]
        return found


def can_be_replaced(iterator: Any) -> bool:  # noqa: ANN401 - a loader's own
    """Whether a loader's workers can be replaced: forked, with a map-style dataset.

    Args:
        iterator: A loader's, with workers.
    """
    import multiprocessing  # noqa: PLC0415 - loaded by the loader already

    kind = type(iterator._workers[0])  # noqa: SLF001
    method = getattr(kind, "_start_method", None) or multiprocessing.get_start_method(allow_none=True)
    return method == "fork" and iterator._dataset_kind == 0  # noqa: SLF001 - `_DatasetKind.Map`


def hand_over(fetch: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """In a worker: make batches as usual, retire on request, or continue where another one stopped.

    Args:
        fetch: Makes a batch from its indices.
    """

    def fetch_or_retire(fetcher: Any, index: Any) -> Any:  # noqa: ANN401 - a class of torch
        """Make a batch."""
        if type(index) is Retirement:
            _retire(index)
        if _inherited:
            RandomStates().put(_inherited.pop())
        return fetch(fetcher, index)

    return fetch_or_retire


_inherited: list[tuple[Any, ...]] = []
"""In the fresh worker: the random states of its first batch."""


def _start_successor(iterator: Any, number: int, place: str, old: int) -> Any:  # noqa: ANN401
    """Start the process that replaces a worker."""
    from torch.utils.data._utils.worker import _worker_loop  # noqa: PLC0415 - as a loader does

    names = (
        *("_dataset_kind", "_dataset", "", "_worker_result_queue", "_workers_done_event", "_auto_collation"),
        *("_collate_fn", "_drop_last", "_base_seed", "_worker_init_fn"),
    )
    arguments = [getattr(iterator, name) if name else iterator._index_queues[number] for name in names]  # noqa: SLF001
    arguments += [number, iterator._num_workers, iterator._persistent_workers, iterator._shared_seed]  # noqa: SLF001
    kind = type(iterator._workers[number])  # noqa: SLF001
    new = kind(target=_succeed, args=(place, old, _worker_loop, arguments))
    new.daemon = True
    with warnings.catch_warnings():  # Python 3.12 warns of threads; the loader forks its own workers the same way
        warnings.simplefilter("ignore", DeprecationWarning)
        new.start()
    return new


def _succeed(place: str, old: int, work: Callable[..., None], arguments: list[Any]) -> None:
    """In the fresh worker: wait until the old one has stopped, then continue with its random states."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    states, parent, done = Path(place + ".states"), os.getppid(), arguments[4]
    while not states.exists():
        if os.getppid() != parent or done.is_set():
            os._exit(0)
        if _has_ended(old) and not states.exists():
            os._exit(1)  # PyTorch reports a dead worker, as it would have without us
        time.sleep(POLL)
    _inherited.append(pickle.loads(states.read_bytes()))  # noqa: S301
    work(*arguments)


def _has_ended(pid: int) -> bool:
    """Whether a process has ended, reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] in {"Z", "X"}
    except not_the_scripts(OSError, IndexError):
        return True


def _retire(order: Retirement) -> NoReturn:
    """In the old worker: write the random states, and stay until the batches have arrived."""
    part, parent = Path(order.place + ".part"), os.getppid()
    with part.open("r+b") as file:  # its space is there already
        file.write(pickle.dumps(RandomStates().take()))
    part.rename(order.place + ".states")
    leave = Path(order.place + ".leave")
    while os.getppid() == parent and leave.parent.exists() and not leave.exists():
        time.sleep(POLL)
    os._exit(0)


def _outstanding(iterator: Any, number: int) -> frozenset[int]:  # noqa: ANN401
    """The tasks of a worker whose batches have not arrived."""
    tasks = iterator._task_info.items()  # noqa: SLF001
    return frozenset(task for task, info in tasks if len(info) == 1 and info[0] == number)


def _tell_signal_handler(iterator: Any, *others: Any) -> None:  # noqa: ANN401
    """Let PyTorch watch the current workers, and replaced ones that are not done yet."""
    torch: Any = sys.modules["torch"]
    pids = tuple(worker.pid for worker in (*iterator._workers, *others))  # noqa: SLF001
    torch._C._remove_worker_pids(id(iterator))  # noqa: SLF001
    torch._C._set_worker_pids(id(iterator), pids)  # noqa: SLF001


def private_bytes(pid: int) -> int:
    """Unshared memory of a process, in bytes; 0 if it has ended (3 ms and more).

    Args:
        pid: The process.
    """
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except not_the_scripts(OSError):
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Private_"))


def _resident(pid: int) -> int | None:
    """Resident memory of a process, in bytes; None if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except not_the_scripts(OSError, IndexError):
        return None


def _touch(path: str) -> None:
    """Create a file, if its folder still exists."""
    try:
        Path(path).touch()
    except not_the_scripts(OSError):
        return
