"""What holdwater itself cannot write or read costs its verdict, and never the script's output or exit code."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]
PROGRAM = str(Path(sys.executable).with_name("holdwater"))
ENDS = "import sys, time\ntime.sleep(1)\nprint('done')\nsys.exit(5)\n"
CLEARS = "import os, shutil, sys\nshutil.rmtree('made', ignore_errors=True)\nos.makedirs('made')\nsys.exit(5)\n"
PATCHED = """
import sys
from holdwater.process.signals import hold_signals
hold_signals(sys.argv)  # before numpy starts threads
import holdwater.observe.observed_run as observed_run
def fails(self, *arguments, **options):
    raise RuntimeError("a mistake of ours")
observed_run.ObservedRun.METHOD = fails
from holdwater.cli.main import run_and_exit
run_and_exit()
"""
MODES = pytest.mark.parametrize("mode", [(), ("--supervise",)], ids=["run", "supervise"])


@MODES
@pytest.mark.parametrize("flag", ["--json", "--report"])
def test_a_folder_that_the_script_clears(holdwater: Run, tmp_path: Path, mode: tuple[str, ...], flag: str) -> None:
    """Its folder for results, in which our files were to lie."""
    (tmp_path / "script.py").write_text(CLEARS)
    (tmp_path / "made").mkdir()

    done = holdwater(
        "run", *mode, "--quiet", "--out", "made/run", "--json", "made/v.json", flag, "made/x", "script.py"
    )
    again = holdwater("run", *mode, "--quiet", "--out", "run", flag, "made/x", "script.py")

    assert (done.returncode, again.returncode) == (5, 5)
    assert "Traceback" not in done.stderr + again.stderr


@MODES
def test_a_file_that_cannot_be_written_is_said(holdwater: Run, tmp_path: Path, mode: tuple[str, ...]) -> None:
    """The folder is gone at the end."""
    (tmp_path / "script.py").write_text("import shutil\nshutil.rmtree('made')\nraise SystemExit(5)\n")
    (tmp_path / "made").mkdir()

    done = holdwater("run", *mode, "--quiet", "--out", "run", "--json", "made/v.json", "script.py")

    assert done.returncode == 5
    assert "--json made/v.json could not be written" in done.stderr
    assert "Traceback" not in done.stderr


@MODES
@pytest.mark.parametrize("closed", ["2>&-", "<&- 2>&-", "<&- >&- 2>&-", "2> >(exec true)"])
def test_standard_streams_that_are_closed(tmp_path: Path, mode: tuple[str, ...], closed: str) -> None:
    """The verdict goes nowhere, not to standard output; a reader that has gone changes no exit code."""
    (tmp_path / "script.py").write_text(ENDS)
    command = f"'{PROGRAM}' run {' '.join(mode)} --out run --json v.json script.py {closed}; echo code $?"

    done = subprocess.run(["/bin/bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)

    said = "" if ">&- 2" in closed and "<&- >&-" in closed else "done\n"
    assert done.stdout == f"{said}code 5\n"
    assert (tmp_path / "v.json").exists()


def test_the_verdict_goes_to_standard_error(holdwater: Run, tmp_path: Path) -> None:
    """Where it is open."""
    (tmp_path / "script.py").write_text(ENDS)

    done = holdwater("run", "--out", "run", "script.py")

    assert (done.returncode, done.stdout) == (5, "done\n")
    assert "holdwater: flat" in done.stderr or "holdwater: unknown" in done.stderr


def test_a_history_that_cannot_be_written(holdwater: Run, tmp_path: Path) -> None:
    """The script runs to its end, observed; there is a verdict."""
    (tmp_path / "script.py").write_text(ENDS)
    (tmp_path / "run" / "rank-0.db-wal").mkdir(parents=True)

    done = holdwater("run", "--quiet", "--out", "run", "--json", "v.json", "script.py")

    assert (done.returncode, done.stdout) == (5, "done\n")
    assert "the run goes on without a history" in done.stderr
    assert (tmp_path / "v.json").exists()


@MODES
@pytest.mark.parametrize("method", ["__init__", "look", "summary"])
def test_a_mistake_of_ours(tmp_path: Path, mode: tuple[str, ...], method: str) -> None:
    """While it observes or judges: what was started is followed to its end."""
    (tmp_path / "script.py").write_text(ENDS)
    (tmp_path / "patched.py").write_text(PATCHED.replace("METHOD", method))
    command = [
        sys.executable,
        "patched.py",
        "run",
        *mode,
        "--quiet",
        "--out",
        "run",
        "--json",
        "v.json",
        "script.py",
    ]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)

    assert (done.returncode, done.stdout) == (5, "done\n"), done.stderr
    assert "a mistake of ours" in done.stderr
    assert "Traceback" not in done.stderr
