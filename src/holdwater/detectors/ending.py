"""Why a process ended: what ended it, by whose word, what memory was, and what to do.

Memory is named only on evidence: the kernel's count of processes that it killed for want of memory, an exception
that says so, an address space or `/dev/shm` that was full. A signal alone is no evidence: schedulers and people
send them.
Sources: Linux manual pages signal(7), getrlimit(2), shm_overview(7); Linux kernel documentation,
admin-guide/cgroup-v2.rst (`memory.events`).
"""

import re
import signal
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from holdwater.exit_codes import STOPPED
from holdwater.units import Bytes, format_size

Shortage = Literal["host memory", "device memory", "shared memory", "open files"]
Cause = Literal[Shortage, "done", "asked to stop", "signal", "error", "exit code"]
SHORTAGES: tuple[Shortage, ...] = ("host memory", "device memory", "shared memory", "open files")
SHM = "/dev/shm"  # noqa: S108 - where POSIX shared memory lies
FULL = 0.95
"""The share of a limit from which on it counts as reached."""
GROWN = 0.25
"""The share of all memory that children must have grown by to be named as what grew."""
SPARE = 0.8
"""The share of a limit that a budget below it takes."""
ASKING = frozenset((signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU))
"""Signals by which schedulers and people end a process."""
_MARKS: tuple[tuple[Shortage, re.Pattern[str]], ...] = (
    ("open files", re.compile(r"Too many open files|received 0 items of ancdata")),
    ("shared memory", re.compile(
        r"insufficient shared memory|\(shm\)|killed by signal: Bus error"
        r"|(?:/dev/shm|/torch_|shared memory).*No space left"
    )),
    ("host memory", re.compile(r"Cannot allocate memory|unable to mmap .* Cannot allocate")),
)  # fmt: skip
"""What exceptions say that are not about memory by their type, the most special first."""
_CHILD_KILLED = re.compile(
    r"killed by signal: Killed|exited unexpectedly|terminated abruptly|SIGKILL|Signal 9|exit ?code\s*:?\s*-9"
)
"""What exceptions say of another process that was killed."""
_CUT_OFF = frozenset(("EOFError", "ConnectionResetError", "BrokenPipeError", "ConnectionRefusedError"))
"""Exceptions of somebody who waits for another process that is gone."""


@dataclass(frozen=True, slots=True)
class Raised:
    """The exception that ended a script."""

    kind: str
    """The name of its class."""
    text: str
    shortage: Shortage | None
    """What it says was short, by its type or the message of its framework."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndFacts:
    """What is known when a process has ended."""

    status: int
    """Its exit code; negative for a signal."""
    step: int
    """Steps that it counted."""
    raised: Raised | None = None
    """None if no exception left the script, or nobody could see it."""
    kills: int = 0
    """How many processes the kernel killed for want of memory while it ran."""
    kills_of: str = "this machine"
    """Whose count that is: `this machine`, or `the control group`."""
    memory: Mapping[str, int] = field(default_factory=dict)
    """The last reading in bytes: `resident`, `children`, `shared`, `device`, as far as they are known."""
    seconds_before: float = 0.0
    """How long before the end that was read."""
    children: Mapping[str, int] = field(default_factory=dict)
    """How many child processes there were, by their kind."""
    children_grown: int = 0
    """Bytes by which they had grown since they were first seen."""
    limits: Mapping[str, int] = field(default_factory=dict)
    """Bytes that it could have at most, by `the control group`, `the address space`, `the machine`, `/dev/shm`."""
    address_space: int = 0
    """Bytes of its address space at the last reading."""
    shared_free: int | None = None
    """Bytes that are free in `/dev/shm`; None if there is no such folder."""
    parts: Mapping[str, int] = field(default_factory=dict)
    """What resident memory was made of at the last count, in bytes, by component."""
    findings: tuple[tuple[str, str], ...] = ()
    """What grew: component and words, the gravest first."""
    judged: bool = True
    """Whether growth was looked for before the end."""
    going_on: str = "holdwater run --supervise"
    """The command that goes on within a budget."""


@dataclass(frozen=True, slots=True)
class RunEnd:
    """Why a process ended."""

    cause: Cause
    by: str
    """What says so."""
    text: str
    """One paragraph."""
    advice: str
    """What to do; empty if there is nothing to be done about memory."""
    component: str
    """Where memory was short; empty if it was not."""
    memory: dict[str, int]
    """The last reading, in bytes."""
    seconds_before: float
    """How long before the end that was read."""

    @property
    def is_of_memory(self) -> bool:
        """Whether memory, or what stands for it, was short."""
        return self.cause in SHORTAGES

    def as_json(self) -> dict[str, Any]:
        """For the verdict."""
        row = asdict(self)
        return row | {"memory": {f"{name}_bytes": size for name, size in self.memory.items()}}


def explain_end(facts: EndFacts) -> RunEnd | None:
    """Say why a process ended; None if it ended with success.

    Args:
        facts: What is known.
    """
    if facts.status == 0:
        return None
    cause, by = _cause(facts)
    short = cause in SHORTAGES
    grown = _growth(cause, facts)
    after = f" after step {facts.step:,}" if facts.step else ""
    said = [f"ended {_HOW[cause]}{after}: {by}.", _memory_words(facts)]
    if short and grown is not None:
        said.append(f"What grew: {grown[0]}: {grown[1]}.")
    elif not short:
        said.append(_beside(facts))
    advice = _advice(cause, facts, grows=grown is not None) if short else ""
    text = " ".join(" ".join(filter(None, (*said, advice))).split())
    return RunEnd(
        cause, by, text, advice, _component(cause, facts) if short else "",
        dict(facts.memory), facts.seconds_before,
    )  # fmt: skip


def _beside(facts: EndFacts) -> str:
    """What is known of memory where something else has ended the process."""
    if facts.kills:
        return f"Meanwhile {_counted(facts)}."
    return "Nothing says that memory was short."


_HOW: dict[Cause, str] = {
    "host memory": "for want of memory",
    "device memory": "for want of device memory",
    "shared memory": "for want of shared memory",
    "open files": "for want of open files",
    "asked to stop": "on request",
    "signal": "by a signal",
    "error": "with an error",
    "exit code": "by itself",
    "done": "well",
}


def _cause(facts: EndFacts) -> tuple[Cause, str]:
    """What ended it, and what says so."""
    raised, kills = facts.raised, facts.kills
    counted = _counted(facts)
    if raised is not None:
        return _cause_of_exception(raised, facts, counted)
    if facts.status in {-signal.SIGKILL, 128 + signal.SIGKILL} and kills:
        return "host memory", counted
    if facts.status == STOPPED:
        return "asked to stop", f"it left with exit code {STOPPED}: stopped on purpose, and ready to be resumed"
    if facts.status > 0:
        return "exit code", f"it left with exit code {facts.status}"
    return _cause_of_signal(facts)


def _counted(facts: EndFacts) -> str:
    """What the kernel has counted."""
    return f"the kernel killed {_several(facts.kills)} for want of memory, by {facts.kills_of}'s count"


def _cause_of_signal(facts: EndFacts) -> tuple[Cause, str]:
    """What a signal means."""
    number = signal.Signals(-facts.status) if -facts.status in set(signal.Signals) else None
    name = f"signal {-facts.status}" if number is None else number.name
    if number == signal.SIGBUS and facts.shared_free is not None and _is_full(facts):
        return "shared memory", f"it received {name}, and /dev/shm was full"
    space = facts.limits.get("the address space", 0)
    if number in {signal.SIGABRT, signal.SIGSEGV} and space and facts.address_space >= FULL * space:
        return "host memory", f"it received {name}, and its address space was full ({format_size(Bytes(space))})"
    if number in ASKING:
        return "asked to stop", f"it received {name}"
    whose = f"; {facts.kills_of}'s count of processes that the kernel killed for want of memory did not rise"
    return "signal", f"it received {name}{whose if number == signal.SIGKILL else ''}"


def _cause_of_exception(raised: Raised, facts: EndFacts, counted: str) -> tuple[Cause, str]:
    """What an exception says, and the kernel's count where another process was killed."""
    said = f"{raised.kind}: {_first_line(raised.text)}".rstrip(": ")
    if raised.shortage is not None:
        return raised.shortage, said
    if raised.kind == "KeyboardInterrupt":
        return "asked to stop", "it was interrupted (KeyboardInterrupt)"
    for shortage, pattern in _MARKS:
        if pattern.search(raised.text):
            return shortage, said
    if _tells_of_child(facts):
        return "host memory", f"{counted}; {said}"
    return "error", said


def _tells_of_child(facts: EndFacts) -> bool:
    """Whether the script has told of another process that was killed, and the kernel has killed one."""
    raised = facts.raised
    if raised is None or not facts.kills:
        return False
    return raised.kind in _CUT_OFF or _CHILD_KILLED.search(raised.text) is not None


def _is_full(facts: EndFacts) -> bool:
    """Whether `/dev/shm` was."""
    size = facts.limits.get(SHM, 0)
    return facts.shared_free is not None and facts.shared_free <= (1 - FULL) * size


def _memory_words(facts: EndFacts) -> str:
    """What memory was."""
    memory = facts.memory
    if "resident" not in memory:
        return ""
    own, children = memory["resident"], memory.get("children", 0)
    whole = format_size(Bytes(own + children))
    parts = [f"{format_size(Bytes(own))} in the process"] if children else []
    if children:
        kinds = ", ".join(f"{count} × {kind}" for kind, count in facts.children.items())
        parts.append(f"{format_size(Bytes(children))} in its children{f' ({kinds})' if kinds else ''}")
    extra = [
        f"{format_size(Bytes(memory[name]))} {words}"
        for name, words in (("shared", "of shared memory"), ("device", "reserved on the device"))
        if memory.get(name)
    ]
    limit = min(((size, name) for name, size in facts.limits.items() if name in _OF_HOST), default=None)
    of = "" if limit is None else f", where {limit[1]} has {format_size(Bytes(limit[0]))}"
    within = f" ({', '.join(parts)})" if parts else ""
    beside = f"; {' and '.join(extra)}" if extra else ""
    return f"{_ago(facts.seconds_before)} it held {whole}{within}{beside}{of}."


_OF_HOST = ("the control group", "the machine")
_POOLS: dict[Cause, str] = {
    "host memory": "host.", "device memory": "device.", "shared memory": "host.shared", "open files": "process.",
}  # fmt: skip
"""With what the names of the components begin that can be short."""


def _growth(cause: Cause, facts: EndFacts) -> tuple[str, str] | None:
    """The gravest growth of what was short."""
    pool = _POOLS.get(cause, "")
    found = next((one for one in facts.findings if pool and one[0].startswith(pool)), None)
    if _tells_of_child(facts):  # what grew in the script itself is not what was killed
        found = next((one for one in facts.findings if one[0] == "host.children"), None)
    held = facts.memory.get("resident", 0) + facts.memory.get("children", 0)
    if found is None and cause == "host memory" and facts.children_grown > GROWN * held:
        grown = format_size(Bytes(facts.children_grown))
        return "host.children", f"its children held {grown} more than when they were first seen"
    return found


def _advice(cause: Cause, facts: EndFacts, *, grows: bool) -> str:
    """What to do, with the number."""
    if cause == "open files":
        return "Raise the limit (ulimit -n), close what is opened, or let fewer loader workers share tensors."
    if cause == "shared memory":
        size = facts.limits.get(SHM, 0)
        now = f", which has {format_size(Bytes(size))}" if size else ""
        return (
            f"Give it more /dev/shm{now} (docker run --shm-size; in Kubernetes an emptyDir of medium Memory), or "
            "use fewer loader workers, a smaller prefetch_factor or smaller batches."
        )
    first = "Cure the growth first."
    if not grows:
        smaller = (
            "micro-batches or shorter rows" if cause == "device memory" else "batches, or fewer loader workers"
        )
        said = "Nothing grew: a step needs more than there is. " if facts.judged else ""
        first = f"{said}Use smaller {smaller}."
    limits = [size for name, size in facts.limits.items() if name in _OF_HOST]
    if cause == "host memory" and limits:
        budget = format_size(Bytes(int(SPARE * min(limits)))).replace(" ", "")
        return f"{first} To go on meanwhile: {facts.going_on} --max-memory {budget}."
    return first


def _component(cause: Cause, facts: EndFacts) -> str:
    """Where memory was short: what grew, or what took most."""
    grown = _growth(cause, facts)
    if grown is not None:
        return grown[0]
    if _tells_of_child(facts):
        return "host.children"
    if cause != "host memory":
        return {"device memory": "device.reserved", "shared memory": "host.shared"}.get(cause, "process.handles")
    parts = {name: size for name, size in facts.parts.items() if name.startswith("host.")}
    parts = parts or {"host.native": facts.memory.get("resident", 0)}
    parts["host.children"] = facts.memory.get("children", 0)
    return max(parts, key=lambda name: parts[name])


def _ago(seconds: float) -> str:
    """How long before the end, for the beginning of a sentence."""
    return "At the end" if seconds < 0.05 else f"{seconds:.1f} s before the end"


def _several(count: int) -> str:
    """A number of processes."""
    return "a process" if count == 1 else f"{count} processes"


def _first_line(text: str, longest: int = 300) -> str:
    """The first line of a message, or the one that says most where the first is empty."""
    line = next((one.strip() for one in text.splitlines() if one.strip()), "")
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
