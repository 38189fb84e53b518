"""What a person sees: one live line in a terminal, plain lines elsewhere; and the other commands."""

import fcntl
import itertools
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
from holdwater.train.progress import PlainScreen, Progress, format_pace, memory_against_budget
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


class Pace:
    """Where a run stands, by a clock that is set."""

    def __init__(self) -> None:
        self.elapsed, self.noted, self.steps = 0.0, 0, 10_000
        self.average, self.trend, self.rate, self.tokens_per_second = 2.5, "↓", 100.0, 6400.0
        self.pictures_per_second = None

    def note(self, loss: float) -> None:
        """Take in the loss of a step."""
        self.noted += loss > 0

    def measure(self, step: int, pictures: int | None) -> None:
        """Take in where it stands."""

    def left(self, step: int) -> float:
        """Seconds."""
        return 60.0 - step / 100


@pytest.mark.parametrize(
    ("rate", "text"), [(0.0, "0.0 steps/s"), (0.25, "4.0 s/step"), (2.345, "2.3 steps/s"), (99.6, "100 steps/s")]
)
def test_slow_steps_are_not_written_as_none(rate: float, text: str) -> None:
    """A step of a large model may take seconds."""
    assert format_pace(rate) == text


def test_plain_lines_become_rarer(capsys: pytest.CaptureFixture[str]) -> None:
    """After 5 s, then after 5 s more, then at a fifth of the time so far and at most 300 s; the last step at the end."""
    pace: Any = Pace()
    screen = PlainScreen(pace)
    shown = []
    for step in range(1, 4001):
        pace.elapsed = float(step)
        screen.show(Progress(step, 2.0, 1e-3, stand_in(InUse(GB, GB))))
        shown += [step] if capsys.readouterr().out else []
    screen.close()

    assert shown[:9] == [5, 10, 15, 20, 25, 30, 36, 44, 53]
    assert [later - earlier for earlier, later in itertools.pairwise(shown[-4:])] == [300, 300, 300]
    assert pace.noted == 4000
    assert " step 4,000/10,000 " in capsys.readouterr().out


def stand_in(held: InUse, *, device: float | None = 8, unified: bool = False) -> Any:
    """A guard that holds so much of a budget of 10 GB, and of one of the device if there is one."""
    of_host, of_device = (
        None if size is None else Budget(Bytes(int(size * GB)), "given", "") for size in (10, device)
    )
    assert of_host is not None
    return SimpleNamespace(
        observer=SimpleNamespace(in_use=lambda: held), budgets=Budgets(of_host, of_device, unified=unified)
    )


@pytest.mark.parametrize(
    ("guard", "shown"),
    [
        (stand_in(InUse(8 * GB, 7 * GB)), "7.00 GB / 8.00 GB"),
        (stand_in(InUse(9 * GB, 7 * GB)), "7.00 GB / 8.00 GB, host 9.00 GB / 10.0 GB"),
        (stand_in(InUse(9 * GB), device=None), "9.00 GB / 10.0 GB"),
        (stand_in(InUse(2 * GB, 7 * GB), device=None, unified=True), "9.00 GB / 10.0 GB"),
    ],
    ids=["the device's alone", "and the host's where that is tight", "without a device", "one pool for both"],
)
def test_memory_is_shown_against_the_budget_of_its_pool(guard: Any, shown: str) -> None:
    """Where the tensors live; nothing is added, but where both are the same memory."""
    assert memory_against_budget(guard) == shown


class TestOtherCommands:
    """`report` and `doctor`, and calls that are mistakes."""

    def test_doctor_tells_what_works_and_what_it_costs(self, holdwater: Run) -> None:
        """Each probe with its cost, or with the reason why it does not work."""
        done = holdwater("doctor", env={**os.environ, "COLUMNS": "160"})

        assert done.returncode == 0, done.stderr
        assert re.search(r"resident +resident memory of this process +each step +\d+ µs +\d+", done.stdout)
        assert re.search(
            r"mlx +MLX memory active and cached +each step +(- +mlx is not loaded|\d+ µs +works)", done.stdout
        )
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
