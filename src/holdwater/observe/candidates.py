"""Find processes that look like training, by their command lines and the libraries that they have mapped."""

import os
from dataclasses import dataclass
from pathlib import Path

import psutil

WORDS = (
    "train",
    "finetune",
    "fine_tune",
    "fine-tune",
    "lora",
    "sft",
    "dpo",
    "torchrun",
    "accelerate",
    "deepspeed",
    "axolotl",
    "lightning",
)
"""Words that occur in the command lines of training processes."""
LIBRARIES = ("libtorch", "libmlx", "libtensorflow", "jaxlib")
"""Libraries that training processes map."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A process that may be training."""

    pid: int
    command: str
    resident: int
    """Bytes."""
    children: int
    why: str
    """Why it was listed."""


def find_training(pattern: str | None = None) -> list[Candidate]:
    """List the processes that look like training, the largest first.

    Args:
        pattern: Part of a command line; None searches for the usual words and libraries.

    Returns:
        The processes, without this one, its ancestors, and children of a listed process.
    """
    family = {os.getpid(), *(process.pid for process in psutil.Process().parents())}
    found: dict[int, Candidate] = {}
    parents: dict[int, int] = {}
    for process in psutil.process_iter():
        if process.pid in family:
            continue
        try:
            words = process.cmdline()
            command = " ".join(words)
            why = _why(process.pid, words, pattern)
            if why is None:
                continue
            resident, children = process.memory_info().rss, len(process.children())
            parents[process.pid] = process.ppid()
        except psutil.Error:
            continue
        found[process.pid] = Candidate(process.pid, command, resident, children, why)
    tops = [candidate for candidate in found.values() if pattern or parents[candidate.pid] not in found]
    return sorted(tops, key=lambda candidate: -candidate.resident)


def _why(pid: int, words: list[str], pattern: str | None) -> str | None:
    """Why a process counts as training; None if it does not."""
    command = " ".join(words)
    if pattern is not None:
        return f"matches {pattern!r}" if pattern in command and "watch" not in words else None
    if not words or ("python" not in Path(words[0]).name.lower() and "torchrun" not in command):
        return None
    library = _mapped_library(pid)
    if library is not None:
        return library
    word = next((one for one in WORDS if one in command.lower()), None)
    return None if word is None else f"its command contains {word!r}"


def _mapped_library(pid: int) -> str | None:
    """The training library that a process has mapped; None if it has none, or may not be read."""
    try:
        maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return next((f"has {library} loaded" for library in LIBRARIES if library in maps), None)


def training_process(pid: int) -> int:
    """The training process, if the PID is that of the `holdwater` command that started it; else the same PID.

    Args:
        pid: A process.
    """
    try:
        process = psutil.Process(pid)
        words = process.cmdline()
        if not {"run", "train"} & set(words) or not any(Path(word).name == "holdwater" for word in words[:3]):
            return pid
        for child in process.children():
            command = child.cmdline()
            if any(word.endswith("/frameworks/observed_script.py") for word in command):
                return int(child.pid)
            if any(word.endswith("/process/forking.py") for word in command):
                forked = child.children()
                return int(forked[0].pid) if forked else pid
    except psutil.Error:
        return pid
    return pid
