"""How a supervised script ends: as it would by itself, at any time at which a signal or a death may come."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]
PROGRAM = str(Path(sys.executable).with_name("holdwater"))
LOOP = """
import os, pathlib, signal, sys, time
import torch
import holdwater
state = {"n": 0}
holdwater.resumable("state", state)
"""
PATCHED = """
import sys, time
from holdwater.process.signals import hold_signals
hold_signals(sys.argv)  # before numpy starts threads
import holdwater.supervise.supervisor as supervisor
import holdwater.observe.observed_run as observed_run
PATCH
from holdwater.cli.main import run_and_exit
run_and_exit()
"""


def patched(folder: Path, patch: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """The command, with something changed in the supervisor's process."""
    (folder / "patched.py").write_text(PATCHED.replace("PATCH", patch))
    command = [sys.executable, "patched.py", "run", "--supervise", "--out", "run", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


def signalled(folder: Path, script: str, number: signal.Signals) -> tuple[int, str, float]:
    """Exit code, output and seconds of a supervised script that gets a signal when it has printed a line."""
    (folder / "train.py").write_text(LOOP + script)
    command = [PROGRAM, "run", "--supervise", "--quiet", "--out", "run", "train.py"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        began = time.monotonic()
        said = process.stdout.read()
        code = process.wait(timeout=100)
    return code, said, time.monotonic() - began


@pytest.mark.parametrize("leave", ["pass", "if step == 3: break"], ids=["complete", "left early"])
def test_after_the_loop_a_signal_does_what_it_always_does(tmp_path: Path, leave: str) -> None:
    """A long evaluation or an export comes after the loop."""
    script = f"for step in holdwater.steps(5):\n    {leave}\nprint('loop done', flush=True)\ntime.sleep(90)\n"

    code, _, seconds = signalled(tmp_path, script, signal.SIGTERM)

    assert code == -signal.SIGTERM
    assert seconds < 20


def test_in_the_loop_a_signal_ends_it_after_its_step(tmp_path: Path) -> None:
    """With a checkpoint, ready to be resumed."""
    script = "for step in holdwater.steps(500):\n    print(step, flush=True)\n    time.sleep(0.1)\n"

    code, _, seconds = signalled(tmp_path, script, signal.SIGTERM)

    assert code == 75
    assert seconds < 20
    assert list((tmp_path / "run" / "checkpoints").glob("step-0000000[1-9]"))


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_script_that_a_signal_ends_is_not_started_again(tmp_path: Path, number: signal.Signals) -> None:
    """Who hangs up, or sends what the script does not handle, ends a plain run too."""
    script = "for step in holdwater.steps(500):\n    print(step, flush=True)\n    time.sleep(0.1)\n"

    code, said, seconds = signalled(tmp_path, script, number)

    assert code == -number
    assert seconds < 20
    assert said.split() == sorted(set(said.split()), key=int)  # each step once


def test_a_handler_of_the_script_takes_its_time(tmp_path: Path) -> None:
    """It writes a large checkpoint; the supervisor does not end it meanwhile."""
    (tmp_path / "train.py").write_text(
        LOOP
        + "def write(number, frame):\n    time.sleep(3)\n    print('written', flush=True)\n    sys.exit(0)\n"
        + "signal.signal(signal.SIGTERM, write)\n"
        + "for step in holdwater.steps(500):\n    time.sleep(0.1)\n"
        + "    if step == 3: os.system('kill -TERM $TOLD')\n"
    )
    patch = "import os\nos.environ['TOLD'] = str(os.getpid())\nsupervisor.PATIENCE = 0.5"

    done = patched(tmp_path, patch, "train.py")

    assert (done.returncode, done.stdout) == (0, "written\n"), done.stderr


@pytest.mark.parametrize("to_group", [True, False], ids=["group", "command"])
@pytest.mark.parametrize("after", [0.0, 0.13])
def test_a_stop_while_processes_are_replaced_is_not_lost(
    holdwater: Run, tmp_path: Path, after: float, *, to_group: bool
) -> None:
    """Whichever process is there, or none: the run stops soon, and goes on where it stood."""
    (tmp_path / "train.py").write_text(
        LOOP + "for step in holdwater.steps(120):\n    state['n'] += 1\n    time.sleep(0.02)\n"
        "    with pathlib.Path('steps').open('a') as file: file.write(f'{step} {state[\"n\"]}\\n')\n"
    )
    command = [PROGRAM, "run", "--supervise", "--quiet", "--reload-interval", "2", "--out", "run"]
    with subprocess.Popen([*command, "train.py"], cwd=tmp_path, start_new_session=True) as process:
        while not (tmp_path / "steps").exists() or len((tmp_path / "steps").read_text().split("\n")) < 5:
            time.sleep(0.02)
        time.sleep(after)
        (os.killpg if to_group else os.kill)(process.pid, signal.SIGTERM)
        began = time.monotonic()
        code = process.wait(timeout=60)

    assert time.monotonic() - began < 15
    assert code == 75
    steps = (tmp_path / "steps").read_text().splitlines()
    assert len(steps) < 120
    done = holdwater("run", "--supervise", "--quiet", "--resume", "--out", "run", "train.py")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "steps").read_text().splitlines() == [f"{step} {step + 1}" for step in range(120)]


def test_a_process_that_has_ended_before_it_is_looked_at_is_one_death(tmp_path: Path) -> None:
    """It was killed out of memory as it began, say: the next one goes on."""
    (tmp_path / "train.py").write_text(
        "import os, pathlib, signal\n"
        "if pathlib.Path('began').exists() and not pathlib.Path('died').exists():\n"
        "    pathlib.Path('died').touch(); os.kill(os.getpid(), signal.SIGKILL)\n"
        "pathlib.Path('began').touch()\n"
        + LOOP
        + "for step in holdwater.steps(30): state['n'] += 1\nprint(state['n'])\n"
    )
    patch = (
        "first = observed_run.ObservedRun.__init__\n"
        "def late(self, *arguments, **options):\n    time.sleep(1.0)\n    first(self, *arguments, **options)\n"
        "observed_run.ObservedRun.__init__ = late"
    )

    done = patched(tmp_path, patch, "--reload-interval", "20", "train.py")

    assert (tmp_path / "died").exists()
    assert (done.returncode, done.stdout) == (0, "30\n"), done.stderr


def test_a_plain_script_that_has_ended_before_it_is_looked_at_keeps_its_code(
    holdwater: Run, tmp_path: Path
) -> None:
    """Its process has no time to be seen."""
    (tmp_path / "train.py").write_text("import os\nos._exit(5)\n")

    assert holdwater("run", "--quiet", "--out", "run", "train.py").returncode == 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_verify_resume_ends_the_run_that_it_has_started(tmp_path: Path, number: signal.Signals) -> None:
    """Sent to its number alone."""
    (tmp_path / "train.py").write_text(LOOP + "print(os.getpid(), flush=True)\ntime.sleep(100)\n")
    with subprocess.Popen([PROGRAM, "verify-resume", "run", "train.py"], cwd=tmp_path) as process:
        family: list[psutil.Process] = []
        while len(family) < 4:  # the run, its witness, the fork server, the script
            family = psutil.Process(process.pid).children(recursive=True)
            time.sleep(0.1)
        process.send_signal(number)

        assert process.wait(timeout=30) == 128 + number
    _, left = psutil.wait_procs(family, timeout=30)
    for one in left:
        one.kill()
    assert not left
