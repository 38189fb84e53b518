"""The process that watches a notebook's kernel and judges it, as `holdwater run` watches a script.

    python -m holdwater.notebook.watcher FOLDER PID OUT

It learns the code of cells from a file, since that is in no other; it writes `live.json` while the cells run, and
`verdict.json` when they have ended.
"""

import json
import os
import sys
import time
from pathlib import Path

from holdwater.attribution.cells import learn
from holdwater.budget import Terms
from holdwater.guard.summary import of_command
from holdwater.observe.observed_run import ObservedRun
from holdwater.probes.machine import read_machine
from holdwater.process.channel import Channel
from holdwater.process.spawn import RunningProcess
from holdwater.store.run_store import open_store

CELLS, LIVE, VERDICT = "cells.json", "live.json", "verdict.json"
LIVE_EVERY = 1.0
"""Least seconds between two writings of the verdict so far."""


class KernelProcess(RunningProcess):
    """A notebook's kernel: nothing of ours starts, signals or ends it."""

    def __init__(self, pid: int, channel: Channel) -> None:
        """Watch it until its session ends.

        Args:
            pid: The kernel's.
            channel: Its session's.
        """
        self.pid, self._channel = pid, channel
        self.exit_status: int | None = None
        self.asked_to_stop = False

    def wait(self, seconds: float) -> bool:
        """Wait; True while the session goes on, and the kernel lives.

        Args:
            seconds: How long.
        """
        time.sleep(seconds)
        return self._channel.state != "ended" and os.getppid() == self.pid


def learn_cells(out: Path, known: dict[str, float]) -> None:
    """Learn the code of new cells.

    Args:
        out: Where the kernel has written it.
        known: When that was read last; changed here.
    """
    try:
        changed = (out / CELLS).stat().st_mtime_ns
        if known.get(CELLS) == changed:
            return
        for file, text in json.loads((out / CELLS).read_text(encoding="utf-8")).items():
            learn(file, text)
        known[CELLS] = changed
    except (OSError, ValueError):
        return


def write_whole(path: Path, text: str) -> None:
    """Write a file that others read meanwhile.

    Args:
        path: The file.
        text: Its content.
    """
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def main() -> None:
    """Watch until the session has ended."""
    folder, pid, out = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    channel = Channel(folder / "channel")
    process = KernelProcess(pid, channel)
    terms = Terms(machine=read_machine(), max_memory=None, max_host_memory=None)
    observed = ObservedRun(process, channel, terms, open_store(out, rank=0), words=["notebook"])
    known: dict[str, float] = {}
    written = 0.0
    while process.wait(observed.pause()):
        learn_cells(out, known)
        observed.look()
        if time.perf_counter() >= written + LIVE_EVERY:
            written = time.perf_counter()
            write_whole(out / LIVE, json.dumps({"verdict": observed.watcher.verdict.kind}))
    observed.finish()
    summary = of_command(observed.summary(), ["holdwater", "notebook"], 0)
    observed.write_down(summary)
    write_whole(out / VERDICT, json.dumps(summary))
    observed.close()
    observed.store.close()


if __name__ == "__main__":
    main()
