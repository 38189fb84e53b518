"""Ask a running process what it holds, if `holdwater run` has started it.

Nothing is injected: such a process polls for questions anyway. Any other process would have to be stopped and made
to run foreign code, which needs a debugger or Python 3.14.
"""

import json
import time
from pathlib import Path
from typing import Any

import psutil

from holdwater.errors import ConfigError, ProbeError
from holdwater.process.channel import Channel


def ask_inventory(pid: int, *, seconds: float = 60.0) -> dict[str, Any]:
    """Ask a process for an inventory, and wait for it.

    Args:
        pid: The script's process, or the `holdwater run` that started it.
        seconds: Time to wait: the process answers after its next step.

    Returns:
        `step`, `text` for people, and `inventory` for programs.

    Raises:
        ConfigError: The process was not started by `holdwater run`.
        ProbeError: It does not answer.
    """
    folder = _folder_of(pid)
    channel = Channel(folder / "channel")
    wanted = channel.get("wanted") + 1
    channel.put("wanted", wanted)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        answer = folder / f"inventory-{wanted}.json"
        if answer.exists():
            found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
            answer.unlink()
            return found
        time.sleep(0.05)
    raise ProbeError(f"the process {pid} has not answered within {seconds:.0f} s; it answers after its next step")


def _folder_of(pid: int) -> Path:
    """The folder in which a process that was started by `holdwater run` takes questions."""
    try:
        process = psutil.Process(pid)
        commands = [process.cmdline(), *(child.cmdline() for child in process.children())]
    except psutil.Error as error:
        raise ConfigError(
            f"the process {pid} cannot be read: {error}; `holdwater watch --find` lists some"
        ) from error
    for word in (word for command in commands for word in command):
        if word.startswith("/") and (Path(word) / "channel").exists():
            return Path(word)
    raise ConfigError(
        f"--explain needs a process that was started by `holdwater run`, and {pid} was not; start it so, "
        "or call holdwater.inventory() in its code (a running Python before 3.14 cannot be entered from outside)"
    )
