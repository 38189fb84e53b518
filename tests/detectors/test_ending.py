"""Memory is named as the cause of an end only where something says so."""

import signal
from dataclasses import replace
from typing import Any

import pytest

from holdwater.detectors.ending import SHM, EndFacts, Raised, explain_end

GB = 10**9
FACTS = EndFacts(
    status=1, step=1204, memory={"resident": 9 * GB, "children": 6 * GB}, seconds_before=0.3,
    children={"a loader worker": 4}, limits={"the control group": 16 * GB, SHM: GB}, shared_free=GB,
    parts={"host.python": GB, "host.tensors": 5 * GB, "host.native": 2 * GB},
)  # fmt: skip
WORKER = "DataLoader worker (pid 12) is killed by signal: "


def end(**facts: Any) -> tuple[str, str]:
    """What is said to have ended a run, and where memory was short."""
    found = explain_end(replace(FACTS, **facts))
    assert found is not None
    assert found.is_of_memory is bool(found.component)
    nothing = "Meanwhile the kernel killed" if facts.get("kills") else "Nothing says that memory was short"
    assert found.is_of_memory is not (nothing in found.text)
    return found.cause, found.component


def raised(text: str, kind: str = "RuntimeError", shortage: Any = None) -> dict[str, Any]:
    """An exception that has left the script."""
    return {"raised": Raised(kind, text, shortage)}


def test_nothing_is_said_of_a_good_end() -> None:
    """Exit code 0, whatever the kernel has done to other processes."""
    assert explain_end(replace(FACTS, status=0, kills=3)) is None


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"status": -signal.SIGKILL, "kills": 1}, ("host memory", "host.children")),
        ({"status": 137, "kills": 1}, ("host memory", "host.children")),
        ({"status": -signal.SIGKILL, "kills": 1, "memory": {"resident": 9 * GB}}, ("host memory", "host.tensors")),
        (raised("", "MemoryError", "host memory"), ("host memory", "host.children")),
        (raised("CUDA out of memory.", "OutOfMemoryError", "device memory"), ("device memory", "device.reserved")),
        (raised(f"{WORKER}Killed.") | {"kills": 1}, ("host memory", "host.children")),
        (raised("", "EOFError") | {"kills": 1}, ("host memory", "host.children")),
        (raised("a command died with exit code -9", "CalledProcessError") | {"kills": 1}, ("host memory", "host.children")),
        (raised(f"{WORKER}Bus error."), ("shared memory", "host.shared")),
        (raised("[Errno 24] Too many open files", "OSError"), ("open files", "process.handles")),
        (raised("unable to mmap 80 bytes from file </torch_1>: Cannot allocate memory (12)"), ("host memory", "host.children")),
        (raised("unable to write to file </torch_1_2_3>: No space left on device (28)"), ("shared memory", "host.shared")),
        ({"status": -signal.SIGBUS, "shared_free": 0}, ("shared memory", "host.shared")),
        ({"status": -signal.SIGABRT, "address_space": 9 * GB, "limits": {"the address space": 9 * GB}}, ("host memory", "host.children")),
    ],
)  # fmt: skip
def test_names_what_was_short(facts: dict[str, Any], expected: tuple[str, str]) -> None:
    """And what took most of it."""
    assert end(**facts) == expected


@pytest.mark.parametrize(
    ("facts", "cause"),
    [
        ({"status": -signal.SIGKILL}, "signal"),
        ({"status": 137}, "exit code"),
        ({"status": 75}, "asked to stop"),
        ({"status": -signal.SIGTERM, "kills": 1}, "asked to stop"),
        ({"status": -signal.SIGUSR1}, "asked to stop"),
        ({"status": -signal.SIGSEGV}, "signal"),
        ({"status": -signal.SIGABRT, "address_space": GB, "limits": {"the address space": 9 * GB}}, "signal"),
        ({"status": -signal.SIGBUS}, "signal"),
        ({"status": -signal.SIGRTMAX}, "signal"),
        (raised("", "KeyboardInterrupt"), "asked to stop"),
        (raised("list index out of range", "IndexError"), "error"),
        (raised("No space left on device: '/runs/model.pt'", "OSError"), "error"),
        (raised(f"{WORKER}Killed."), "error"),
        (raised("", "EOFError"), "error"),
        (raised("list index out of range", "IndexError") | {"kills": 1}, "error"),
        ({"status": 1, "kills": 1}, "exit code"),
    ],
)  # fmt: skip
def test_names_no_memory_without_evidence(facts: dict[str, Any], cause: str) -> None:
    """Schedulers and people send signals too, and disks fill up."""
    assert end(**facts) == (cause, "")


@pytest.mark.parametrize(
    ("findings", "component"),
    [
        ((("device.active", "grows"), ("host.native", "grows by 3 MB/step")), "host.native"),
        ((("device.active", "grows"),), "host.children"),
    ],
)
def test_a_growth_of_what_was_short_is_named_first(findings: tuple[tuple[str, str], ...], component: str) -> None:
    """Growth of another pool is not the cause."""
    assert end(status=-signal.SIGKILL, kills=1, findings=findings) == ("host memory", component)


def test_children_that_have_grown_are_what_grew() -> None:
    """Where no growth of the script itself is known."""
    found = explain_end(replace(FACTS, status=-9, kills=1, children_grown=5 * GB))

    assert found is not None
    assert "What grew: host.children: its children held 5.00 GB more" in found.text
    assert "Nothing grew" not in found.text


def test_says_nothing_of_growth_that_was_not_looked_for() -> None:
    """A run that died before its first judgement; and how it goes on is its own command."""
    found = explain_end(replace(FACTS, status=-9, kills=1, judged=False, going_on="holdwater train --resume"))

    assert found is not None
    assert "Nothing grew" not in found.text
    assert "To go on meanwhile: holdwater train --resume --max-memory 12.8GB." in found.text


def test_one_paragraph_says_all() -> None:
    """What, by whose word, how much of how much, and what to do, each with its number."""
    found = explain_end(replace(FACTS, status=-9, kills=1, kills_of="the control group"))

    assert found is not None
    assert found.text == (
        "ended for want of memory after step 1,204: the kernel killed a process for want of memory, by the control "
        "group's count. 0.3 s before the end it held 15.0 GB (9.00 GB in the process, 6.00 GB in its children (4 × a loader "
        "worker)), where the control group has 16.0 GB. Nothing grew: a step needs more than there is. Use smaller "
        "batches, or fewer loader workers. To go on meanwhile: holdwater run --supervise --max-memory 12.8GB."
    )
    assert found.as_json()["memory"] == {"resident_bytes": 9 * GB, "children_bytes": 6 * GB}
