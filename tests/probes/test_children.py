"""Child processes from outside: what they take for themselves."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from holdwater.probes.children import ChildProcesses, descendants

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")

GROWS = """
import sys
kept = []
print("ready", flush=True)
for line in sys.stdin:
    kept.append(bytearray(b"x") * int(line))
    print("done", flush=True)
"""


@contextmanager
def child() -> Iterator["subprocess.Popen[str]"]:
    """A process that takes so many bytes for each line that it reads."""
    process = subprocess.Popen(
        [sys.executable, "-c", GROWS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        tell(process)
        yield process
    finally:
        process.kill()
        process.communicate()


def tell(process: "subprocess.Popen[str]", size: int = 0) -> None:
    """Let it take so much, if any, and wait until it has."""
    assert process.stdin is not None
    assert process.stdout is not None
    if size:
        process.stdin.write(f"{size}\n")
        process.stdin.flush()
    process.stdout.readline()


def test_reports_what_a_child_takes() -> None:
    """Between two listings too."""
    children = ChildProcesses(psutil.Process())
    with child() as process:
        before = children.read()["children_own"]
        tell(process, 20_000_000)
        grown = children.read_own()["children_own"] - before

        assert grown == pytest.approx(20_000_000, rel=0.05)
        assert children.growers()[0].pid == process.pid


def test_a_child_that_is_gone_must_be_listed_anew() -> None:
    """Its sum would be short of it."""
    children = ChildProcesses(psutil.Process())
    with child():
        assert children.read()["child_count"] == 1

    assert children.read_own() == {}
    assert children.read()["children_own"] == 0


def test_pages_that_the_parent_writes_to_are_no_growth_of_a_fork() -> None:
    """The fork keeps the old ones, of which its share rises."""
    kept = bytearray(b"x") * 20_000_000
    pid = os.fork()
    if pid == 0:  # pragma: no cover - in the child
        time.sleep(60)
        os._exit(0)
    try:
        children = ChildProcesses(psutil.Process())
        first = children.read()
        kept[:] = b"y" * len(kept)
        second = children.read()
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)

    assert second["children"] - first["children"] > 8_000_000
    assert second["children_own"] - first["children_own"] < 1_000_000


def test_children_are_listed_anew_only_when_there_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full listing reads every process of the machine."""
    listings = 0
    whole = psutil.Process.children

    def counted(process: psutil.Process, *, recursive: bool = False) -> list[psutil.Process]:
        """List them, and count it."""
        nonlocal listings
        listings += 1
        return whole(process, recursive=recursive)

    monkeypatch.setattr(psutil.Process, "children", counted)
    children, seen = ChildProcesses(psutil.Process()), []
    seen += [children.read()["child_count"] for _ in range(3)]
    with child():
        seen += [children.read()["child_count"] for _ in range(3)]
    seen += [children.read()["child_count"] for _ in range(3)]

    assert seen == [0, 0, 0, 1, 1, 1, 0, 0, 0]
    assert listings == 3


def test_descendants_are_children_and_theirs() -> None:
    """As a full listing finds them."""
    nested = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    with subprocess.Popen(
        [sys.executable, "-c", nested], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found, listed = descendants(os.getpid()), psutil.Process().children(recursive=True)
        process.communicate(b"\n")

    assert found == {one.pid for one in listed}
    assert len(listed) == 2


def test_the_watching_process_is_no_child_of_what_it_watches() -> None:
    """A notebook's kernel starts its own watcher; another child counts."""
    watcher = (
        "import os, psutil; from holdwater.probes.children import ChildProcesses; "
        "print(ChildProcesses(psutil.Process(os.getppid())).read()['child_count'])"
    )
    code = (
        "import subprocess, sys\n"
        "other = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)\n"
        "subprocess.run([sys.executable, '-c', sys.argv[1]])\n"
        "other.communicate(b'\\n')\n"
    )
    run = subprocess.run([sys.executable, "-c", code, watcher], capture_output=True, text=True, check=True)

    assert run.stdout.strip() == "1"


def test_a_child_of_what_the_watcher_has_started_counts() -> None:
    """As under `holdwater run`, which is the parent of the script."""
    code = (
        "import subprocess, sys\n"
        "other = subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)\n"
        "print('there', flush=True)\n"
        "input()\n"
        "other.communicate(b'\\n')\n"
    )
    script = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert script.stdout is not None
    script.stdout.readline()

    found = ChildProcesses(psutil.Process(script.pid)).read()

    script.communicate("\n")
    assert found["child_count"] == 1
