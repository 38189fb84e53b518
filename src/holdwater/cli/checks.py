"""Checks and flags that several commands share: writable files, the folder of a new run, budgets."""

import importlib
import json
import os
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from holdwater.budget import Terms
from holdwater.errors import ConfigError, HoldwaterError, RunFolderError
from holdwater.probes.machine import read_machine
from holdwater.standard_error import write_line
from holdwater.store.lock import FULL
from holdwater.units import Bytes

ADVICE = "write: pip install torch safetensors"


def check_writable(flag: str, path: Path | None) -> None:
    """Find out before a long run whether its verdict can be written.

    Args:
        flag: The flag that named the file.
        path: The file; None if the flag is not given.

    Raises:
        ConfigError: It cannot be written.
    """
    if path is None:
        return
    folder = path.resolve().parent
    if not folder.is_dir() or path.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigError(f"{flag} {path} cannot be written; name a file in a folder that exists")


def attempt(what: str, write: Callable[[], object]) -> None:
    """Write something at the end of a run; an error is a remark, for the exit code is that of what was run.

    Args:
        what: What is written, for the remark.
        write: Writes it.
    """
    try:
        write()
    except Exception as error:  # noqa: BLE001 - a full disk, a folder that is gone, a report that cannot be drawn
        write_line(f"holdwater: {what} could not be written: {error}")


def write_verdict(file: Path, verdict: Mapping[str, Any]) -> None:
    """Write the verdict of a run as JSON, if that is possible.

    Args:
        file: What `--json` names.
        verdict: By schema 1.
    """
    text = json.dumps(verdict, indent=1) + "\n"
    attempt(f"--json {file}", lambda: file.write_text(text, encoding="utf-8"))


def free_run_folder(out: Path | None, name: str, *, rank: int = 0) -> Path:
    """The folder of a new run.

    Args:
        out: What the user named; None makes `runs/<date>-<name>`.
        name: What is run.
        rank: The rank of this process in a distributed run.

    Raises:
        RunFolderError: The folder holds a run already.
    """
    if out is None:
        stamp = datetime.now().astimezone().strftime("%Y-%m-%d-%H%M%S")
        first = Path("runs") / f"{stamp}-{name}"
        out, number = first, 1
        while (out / f"rank-{rank}.db").exists():
            number += 1
            out = first.with_name(f"{first.name}-{number}")
        return out
    if (out / f"rank-{rank}.db").exists():
        raise RunFolderError(f"--out {out} holds a run already; name another folder, or remove it")
    return out


def make_folder(out: Path) -> Path:
    """Create the folder of a run, and check that it can be written into; on a full disk the run goes on without.

    Args:
        out: The folder.

    Returns:
        The same.

    Raises:
        RunFolderError: It cannot be created or written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".written").touch()
        (out / ".written").unlink()
    except OSError as error:
        if error.errno in FULL:  # the history says so
            return out
        raise RunFolderError(f"--out {out} cannot be written: {error.strerror}; name another folder") from error
    return out


def needs_torch(what: str) -> None:
    """Say what to install where PyTorch, or what it needs here, is missing.

    Args:
        what: That needs it, for the message.

    Raises:
        HoldwaterError: It cannot be imported.
    """
    try:
        importlib.import_module("torch")
        importlib.import_module("safetensors.torch")
    except ImportError as error:
        name = (error.name or "torch").partition(".")[0]
        raise HoldwaterError(f"{what} needs {name}, which cannot be imported ({error}); {ADVICE}") from error


def choose_terms(max_memory: Bytes | None, max_host_memory: Bytes | None) -> Terms:
    """The terms of another process's budgets: it is not known yet whether it will use a device.

    Args:
        max_memory: Of the memory in which the training's tensors live; None finds one.
        max_host_memory: Of the host's memory, where training uses a device; None finds one.
    """
    return Terms(machine=read_machine(), max_memory=max_memory, max_host_memory=max_host_memory)
