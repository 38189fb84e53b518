"""Watch a training process from beside it, for a program that observes itself: the process that does so.

    python -m holdwater.observe.attached_run '{"folder": …, "pid": …}'

A callback or a guard starts this; it is not a command of its own. It is no child of what it watches, so a program
that waits for its children never meets it. It ends with the training, or with the training's process.
"""

import contextlib
import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from holdwater.observe.observed_run import ObservedRun
    from holdwater.process.channel import Channel
    from holdwater.store.run_store import RunStore

VERDICT, SUMMARY, READY, MARKS = "verdict.json", "summary.json", "ready", "marks.jsonl"
"""Files in the channel's folder: the judgement so far, from the first finding on; the one at the end; that
watching has begun; and the events that the training process marks: step, seconds, kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchRequest:
    """What is to be watched."""

    folder: str = ""
    """Holds the channel."""
    pid: int = 0
    """Of the training process."""
    words: tuple[str, ...] = ()
    """Its command line, for the report."""
    out: str | None = None
    """The folder of the run; None keeps no history."""
    max_memory: int | None = None
    """The budget in bytes of the pool in which tensors live, for forecasts; None finds one."""
    max_host_memory: int | None = None
    """The same of the host's memory beside a device."""
    first_step: int = 0
    """The last step that was done before."""
    rank: int = 0
    """The number of the process among those of the run."""
    quiet: bool = False
    """Print nothing while training goes on."""

    def as_text(self) -> str:
        """The argument of the process."""
        return json.dumps({name: getattr(self, name) for name in self.__slots__})

    @classmethod
    def from_text(cls, text: str) -> "WatchRequest":
        """The request of an argument.

        Args:
            text: Made by `as_text`.
        """
        fields = json.loads(text)
        return cls(**fields | {"words": tuple(fields["words"])})


class AttachedProcess:
    """A process that this one has not started, and that is watched until its training ends."""

    def __init__(self, pid: int, channel: "Channel") -> None:
        self.pid = pid
        self.exit_status: int | None = None
        """None: only a parent is told."""
        self._channel = channel

    def wait(self, seconds: float) -> bool:
        """Wait; False once the training has ended, or the process.

        Args:
            seconds: At most.
        """
        deadline = time.perf_counter() + seconds
        while self._channel.state != "ended" and self.is_alive():
            left = deadline - time.perf_counter()
            if left <= 0:
                return True
            time.sleep(min(left, 0.05))
            if self._channel.state == "ending":
                return True
        return False

    def is_alive(self) -> bool:
        """Whether the process runs: one that nobody has collected does not."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            if Path("/proc/self").exists():
                return False
            return _can_be_signalled(self.pid)
        return fields[0] not in {"Z", "X"}


def main() -> None:
    """Leave the process that has started this one, and watch it."""
    watcher = os.fork()
    if watcher:
        os.write(1, str(watcher).encode())
        os._exit(0)  # the training process waits for this end, and has no child then
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # it waits until nobody has its pipe any more
    request = WatchRequest.from_text(sys.argv[1])
    try:
        watch(request)
    except Exception as error:  # noqa: BLE001 - nobody waits for this process, and the training goes on
        from holdwater.standard_error import write_line  # noqa: PLC0415 - hardly ever needed

        write_line(f"holdwater: this training is not observed, and there is no verdict: {error!r}")


def watch(request: WatchRequest) -> None:
    """Watch until the training has ended, and leave its judgement.

    Args:
        request: What to watch.
    """
    from holdwater.probes.processes import OBSERVERS  # noqa: PLC0415 - the training process waits for imports before
    from holdwater.process.channel import Channel  # noqa: PLC0415

    OBSERVERS.add(os.getpid())  # in a container the training process may adopt those without a parent
    folder = Path(request.folder)
    channel = Channel(folder / "channel")
    process = AttachedProcess(request.pid, channel)
    who = f"rank {request.rank}: " if request.rank else ""
    observed = _observed(request, process, channel, who)
    (folder / READY).touch()
    _follow(observed, process, folder)
    _keep_marks(folder / MARKS, observed.store)
    summary = observed.summary()
    observed.write_down(summary)
    observed.store.close()
    if process.is_alive():
        observed.close_reading()
        _leave(folder / SUMMARY, summary)
    else:
        _tell_of_death(summary, who)
        observed.close()


def _observed(request: WatchRequest, process: AttachedProcess, channel: "Channel", who: str) -> "ObservedRun":
    """Begin to observe."""
    from holdwater.budget import Terms  # noqa: PLC0415 - as above
    from holdwater.observe.news import News  # noqa: PLC0415
    from holdwater.observe.observed_run import ObservedRun  # noqa: PLC0415
    from holdwater.probes.machine import read_machine  # noqa: PLC0415
    from holdwater.store.run_store import RunStore, open_store  # noqa: PLC0415
    from holdwater.units import Bytes  # noqa: PLC0415

    out = Path(request.folder if request.out is None else request.out)
    store = RunStore(out, kept=False) if request.out is None else open_store(out, rank=request.rank)
    sizes = (request.max_memory, request.max_host_memory)
    tensors, host = (None if size is None else Bytes(size) for size in sizes)
    return ObservedRun(
        process, channel, Terms(machine=read_machine(), max_memory=tensors, max_host_memory=host), store,
        words=request.words, first_step=request.first_step, news=News(quiet=request.quiet, who=who),
    )  # fmt: skip


def _follow(observed: "ObservedRun", process: AttachedProcess, folder: Path) -> None:
    """Look until the training has ended; leave the judgement whenever its findings have changed."""
    told: list[dict[str, Any]] = []
    while process.wait(observed.pause()):
        observed.look()
        found = observed.findings()
        if found != told:
            told = found
            _leave(folder / VERDICT, observed.summary())
    observed.finish()


def _keep_marks(file: Path, store: "RunStore") -> None:
    """Store the events that the training process has marked."""
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        with contextlib.suppress(ValueError):  # the last line of a process that was killed
            step, seconds, kind = json.loads(line)
            store.mark(step, seconds, kind, {})


def _leave(file: Path, content: object) -> None:
    """Write a file as a whole: the training process may read it meanwhile."""
    with contextlib.suppress(OSError):  # the folder is gone, or full
        aside = file.with_suffix(".part")
        aside.write_text(json.dumps(content), encoding="utf-8")
        aside.replace(file)


def _tell_of_death(summary: dict[str, Any], who: str) -> None:
    """The training process was killed: say what its memory did until then."""
    from holdwater.standard_error import write_line  # noqa: PLC0415 - as above

    write_line(f"holdwater: {who}the process ended within its training, after {summary['steps']} steps")
    for row in summary["findings"]:
        if row["verdict"] in {"leak", "fragmentation", "pressure"}:
            write_line(f"holdwater: {who}{row['verdict']} of {row['component']}: {row['advice']}")


def _can_be_signalled(pid: int) -> bool:
    """Whether a process exists, where there is no /proc."""
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
