"""Which signals reach the process that training processes are forked from, and which reach those."""

import os
import signal
import time
from pathlib import Path

import pytest

from holdwater.process.fork_server import HELD_BACK, Ended, ForkServer

WAITS = """
import time

def wait():
    time.sleep(60)
"""


def held_back(pid: int) -> set[int]:
    """The signals that a process does not take now, as the kernel tells."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    mask = int(next(line for line in status.splitlines() if line.startswith("SigBlk")).split()[1], 16)
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the kernel tells it on Linux only")
def test_signals_are_held_back_from_the_server_and_not_from_what_it_forks(tmp_path: Path) -> None:
    """From its first instruction on: Ctrl-C in the first milliseconds would end it with a traceback."""
    (tmp_path / "waits.py").write_text(WAITS)
    server = ForkServer(["waits"], os.environ | {"PYTHONPATH": str(tmp_path)})
    try:
        at_once = held_back(server.pid)
        forked = server.fork("waits:wait", ["waits"], os.environ)

        assert at_once == held_back(server.pid) == set(HELD_BACK)
        assert forked is not None
        for _ in range(100):
            if not held_back(forked):
                break
            time.sleep(0.05)
        assert held_back(forked) == set()

        os.kill(server.pid, signal.SIGINT)
        os.kill(forked, signal.SIGTERM)
        ended = list[Ended]()
        for _ in range(200):
            ended += server.ended()
            if ended:
                break
            time.sleep(0.05)
        assert [(one.pid, one.status) for one in ended] == [(forked, -signal.SIGTERM)]
        assert server.alive
    finally:
        server.wait(10.0)


@pytest.mark.parametrize(("own", "fits"), [("wave.py", False), ("waves.py", True), ("wave", True)])
def test_an_import_that_a_module_of_the_script_hides_is_not_made_for_it(
    tmp_path: Path, own: str, *, fits: bool
) -> None:
    """Neither directly nor by another import; a folder without `__init__.py` hides nothing."""
    if own.endswith(".py"):
        (tmp_path / own).touch()
    else:
        (tmp_path / own).mkdir()
    server = ForkServer(["wave"], os.environ, folder=str(tmp_path))
    try:
        forked = server.fork("time:time", ["x"], os.environ)

        assert (forked is not None) == fits
        assert fits or "hides a module" in str(server.unfit)
    finally:
        server.wait(10.0)
