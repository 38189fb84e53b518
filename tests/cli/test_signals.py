"""A script's signals are its own: what the caller ignores stays ignored, and each signal arrives once."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

PROGRAM = str(Path(sys.executable).with_name("holdwater"))
PLAIN = (PROGRAM, "run", "--quiet", "--out", "run")
SUPERVISED = (PROGRAM, "run", "--quiet", "--supervise", "--out", "run")
TELLS = """
import signal
numbers = sorted(signal.valid_signals() - {signal.SIGPIPE, signal.SIGXFSZ})
print([(int(n), str(signal.getsignal(n))) for n in numbers], sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
"""
COUNTS = """
import signal, time
came = []
for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM, signal.SIGRTMIN + 3):
    signal.signal(number, lambda number, frame: came.append(int(number)))
print("ready", flush=True)
end = time.monotonic() + 20
while not came and time.monotonic() < end:
    time.sleep(0.01)
time.sleep(0.4)
print(came)
"""
NUMBERS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM, signal.SIGRTMIN + 3)


def ignore_and_block() -> None:
    """As a caller may: `nohup`, a job in the background of a script, a thread that blocks signals."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})


@contextmanager
def ready(command: tuple[str, ...], folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """A script that counts signals, in a process group of its own, when it can take them."""
    (folder / "script.py").write_text(COUNTS)
    with subprocess.Popen(
        [*command, "script.py"], cwd=folder, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process


@pytest.mark.parametrize("command", [PLAIN, SUPERVISED], ids=["run", "supervise"])
@pytest.mark.parametrize("prepare", [ignore_and_block, None], ids=["ignored", "as usual"])
def test_dispositions_are_the_callers(tmp_path: Path, command: tuple[str, ...], prepare: object) -> None:
    """For each signal what a plain Python would find; the exit code comes back even if SIGCHLD is ignored."""
    (tmp_path / "script.py").write_text(TELLS + "raise SystemExit(5)\n")
    bare, ours = (
        subprocess.run(
            [*words, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
            preexec_fn=prepare,
        )  # type: ignore[call-overload]
        for words in ((sys.executable,), command)
    )  # fmt: skip

    assert ours.stdout == bare.stdout
    assert (ours.returncode, bare.returncode) == (5, 5), ours.stderr


def test_an_ignored_signal_does_not_stop_a_run(tmp_path: Path) -> None:
    """The terminal of a `nohup` job hangs up: all processes of the job get SIGHUP."""
    (tmp_path / "script.py").write_text(
        "import time\nprint('ready', flush=True)\ntime.sleep(0.5)\nprint('done')\n"
    )
    with subprocess.Popen(
        [*PLAIN, "script.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=ignore_and_block,  # noqa: PLW1509 - this process has one thread
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        os.killpg(process.pid, signal.SIGHUP)
        os.kill(process.pid, signal.SIGTERM)

        assert (process.stdout.read(), process.wait(timeout=30)) == ("done\n", 0)


@pytest.mark.parametrize("command", [PLAIN, SUPERVISED], ids=["run", "supervise"])
@pytest.mark.parametrize("number", NUMBERS, ids=["TERM", "USR1", "ALRM", "real-time"])
def test_a_signal_to_the_group_arrives_once(tmp_path: Path, command: tuple[str, ...], number: int) -> None:
    """As `kill -- -PGID` sends it, and batch systems before they end a job."""
    with ready(command, tmp_path) as process:
        os.killpg(process.pid, number)
        came = process.stdout.read() if process.stdout else ""

    assert (came, process.wait(timeout=30)) == (f"[{int(number)}]\n", 0)


@pytest.mark.parametrize("command", [PLAIN, SUPERVISED], ids=["run", "supervise"])
@pytest.mark.parametrize("number", NUMBERS, ids=["TERM", "USR1", "ALRM", "real-time"])
def test_a_signal_to_the_command_arrives_once(tmp_path: Path, command: tuple[str, ...], number: int) -> None:
    """Sent to its number alone."""
    with ready(command, tmp_path) as process:
        process.send_signal(number)
        came = process.stdout.read() if process.stdout else ""

    assert (came, process.wait(timeout=30)) == (f"[{int(number)}]\n", 0)


@pytest.mark.parametrize("command", [PLAIN, SUPERVISED], ids=["run", "supervise"])
@pytest.mark.parametrize("pattern", ["", "script.py", "holdwater run"], ids=["all", "script", "command"])
def test_a_signal_to_each_process_arrives_once(tmp_path: Path, command: tuple[str, ...], pattern: str) -> None:
    """As `pkill -f` and the end of a control group send it: one after another, the oldest first."""
    with ready(command, tmp_path) as process:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        found = [one for one in family if pattern in " ".join(one.cmdline())]
        for one in sorted(found or family[:1], key=lambda one: one.pid):
            one.send_signal(signal.SIGUSR1)
        came = process.stdout.read() if process.stdout else ""

    assert (came, process.wait(timeout=30)) == (f"[{int(signal.SIGUSR1)}]\n", 0)


@pytest.mark.parametrize("command", [PLAIN, SUPERVISED], ids=["run", "supervise"])
def test_nothing_that_was_started_is_left(tmp_path: Path, command: tuple[str, ...]) -> None:
    """Of the helpers, when the command was killed at once."""
    with ready(command, tmp_path) as process:
        everybody = psutil.Process(process.pid).children(recursive=True)
        helpers = [child for child in everybody if "observed_script.py" not in " ".join(child.cmdline())]
        process.kill()
        process.wait(timeout=30)
        gone, left = psutil.wait_procs(helpers, timeout=20)
        for child in everybody:
            if child.is_running():
                child.kill()

    assert helpers
    assert not left
    assert len(gone) == len(helpers)


@pytest.mark.parametrize(
    ("command", "came"), [(PLAIN, signal.SIGUSR1), (SUPERVISED, signal.SIGTERM)], ids=["run", "supervise"]
)
def test_a_script_outlives_a_command_that_was_killed_unless_it_is_supervised(
    tmp_path: Path, command: tuple[str, ...], came: int
) -> None:
    """A plain one goes on to its own end; a supervised one is asked to end: a second process may begin."""
    with ready(command, tmp_path) as process:
        family = psutil.Process(process.pid).children(recursive=True)
        scripts = [one for one in family if "script.py" in one.cmdline()]
        process.kill()
        process.wait(timeout=30)
        for one in scripts:
            one.send_signal(signal.SIGUSR1)

        assert (process.stdout.read() if process.stdout else "") == f"[{int(came)}]\n"
