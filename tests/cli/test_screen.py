"""What a person sees: one live line in a terminal, plain lines elsewhere; and the other commands."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from holdwater.budget import Budget, Budgets, InUse
from holdwater.train.progress import memory_against_budget
from holdwater.units import Bytes

GB = 10**9
Run = Callable[..., "subprocess.CompletedProcess[str]"]
FLAGS = (
    *("train", "--preset", "tiny", "--train-seq-length", "16", "--threads", "1", "--sample-length", "0"),
    *("--steps", "600", "--out", "run", "--max-memory", "4GB"),
)
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def in_a_terminal(arguments: tuple[str, ...], *, folder: Path, columns: int) -> tuple[int, str]:
    """Run the command in a terminal of so many columns; return its exit code and all that it wrote."""
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    command = [str(Path(sys.executable).with_name("holdwater")), *arguments]
    environment = {**os.environ, "TERM": "xterm-256color"}
    environment.pop("COLUMNS", None)  # would say more than the terminal
    process = subprocess.Popen(command, cwd=folder, stdin=side, stdout=side, stderr=side, env=environment)
    os.close(side)
    parts = []
    while True:
        try:
            part = os.read(main, 65536)
        except OSError:  # the other side is closed
            break
        if not part:
            break
        parts.append(part)
    os.close(main)
    return process.wait(), ESCAPE.sub("", b"".join(parts).decode())


@pytest.mark.parametrize("columns", [60, 160])
def test_a_terminal_shows_one_live_line(tmp_path: Path, text_file: Path, columns: int) -> None:
    """Elapsed, bar, step, memory against the budget; on a wide terminal everything."""
    code, text = in_a_terminal((*FLAGS, "--data", str(text_file)), folder=tmp_path, columns=columns)

    line = next(line for line in reversed(re.split(r"[\r\n]+", text)) if "/600" in line)
    words = (
        ("600/600", "━")
        if columns == 60
        else ("600/600", "/ 4.00 GB", "loss", "avg", "lr", "steps/s", "tok/s", "left")
    )
    assert code == 0, text
    assert all(word in line for word in words), line
    assert max(map(len, re.split(r"[\r\n]+", line))) <= columns


def test_a_pipe_gets_plain_lines(holdwater: Run, text_file: Path) -> None:
    """Nothing that only a terminal understands."""
    done = holdwater(*FLAGS, "--data", str(text_file))

    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    assert all(re.match(r"\d+ s  step \d+/600 |step \d+: |verdict: ", line) for line in done.stdout.splitlines())
    assert re.search(r"step 600/600  loss \d\.\d+ .* steps/s .* tokens/s .* memory \d+ MB / 4\.00 GB", done.stdout)


@pytest.mark.parametrize(
    ("held", "shown"),
    [
        (InUse(GB, 7 * GB), "7.00 GB / 8.00 GB"),
        (InUse(9 * GB, 7 * GB), "7.00 GB / 8.00 GB, host 9.00 GB / 10.0 GB"),
    ],
    ids=["the device's alone", "and the host's where that is tight"],
)
def test_memory_is_shown_against_the_budget_of_its_pool(held: InUse, shown: str) -> None:
    """Where the tensors live; nothing is added."""
    of_host, of_device = (Budget(Bytes(size * GB), "given", "") for size in (10, 8))
    guard: Any = SimpleNamespace(
        observer=SimpleNamespace(in_use=lambda: held), budgets=Budgets(of_host, of_device)
    )

    assert memory_against_budget(guard) == shown


class TestOtherCommands:
    """`report` and `doctor`, and calls that are mistakes."""

    def test_doctor_tells_what_works_and_what_it_costs(self, holdwater: Run) -> None:
        """Each probe with its price, or with the reason why it does not work."""
        done = holdwater("doctor", env={**os.environ, "COLUMNS": "160"})

        assert done.returncode == 0, done.stderr
        assert re.search(r"resident +resident memory of this process +each step +\d+ µs +\d+", done.stdout)
        assert "mlx is not loaded" in done.stdout or "mlx" in done.stdout
        assert "budget" in done.stdout

    def test_report_of_no_run_is_a_mistake(self, holdwater: Run) -> None:
        """One message, exit code 2."""
        done = holdwater("report", "nowhere")

        assert done.returncode == 2
        assert "not the folder of a run" in done.stderr

    @pytest.mark.parametrize("command", ["train", "run", "watch", "plan", "report", "replay", "doctor"])
    def test_every_command_has_help(self, holdwater: Run, command: str) -> None:
        """With its flags and their defaults."""
        done = holdwater(command, "--help")

        assert done.returncode == 0
        assert f"usage: holdwater {command}" in done.stdout

    def test_an_unknown_command_is_a_mistake(self, holdwater: Run) -> None:
        """As everywhere."""
        assert holdwater("fly").returncode == 2
