"""`holdwater run` says why a script died: in its last line, in the verdict, and in the termination message."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def endings() -> ModuleType:
    """The benchmark, which knows ways to end."""
    sys.path.insert(0, str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("endings", BENCHMARKS / "endings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SHORT = ("MemoryError", "CPU allocator", "CUDA", "open files", "address space")
OTHERS = ("SIGKILL", "error", "exit 137", "interrupted", "well")


@pytest.mark.parametrize("name", [*SHORT, *OTHERS])
def test_names_what_ended_it(endings: ModuleType, name: str, tmp_path: Path) -> None:
    """What was short and where; and no memory where none was."""
    end = next(one for one in endings.ENDS if one.name == name)

    found = endings.died(end, tmp_path, None)

    assert found["named"], found
    assert found["said"], found


@pytest.mark.parametrize("name", ["grow", "worker grows"])
def test_the_kernels_own_count_is_believed(endings: ModuleType, name: str, tmp_path: Path) -> None:
    """It kills in a control group of 600 MB."""
    try:
        group = endings.Group()
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    end = next(one for one in endings.ENDS if one.name == name)

    found = endings.died(end, tmp_path, group)

    assert found["named"], found
    assert found["said"], found


def test_a_supervised_script_says_it_too(endings: ModuleType, tmp_path: Path) -> None:
    """Of its last process."""
    verdict = tmp_path / "v.json"
    command = ["--supervise", "--max-restarts", "0", "--out", str(tmp_path / "run"), "--json", str(verdict)]
    done = endings.subprocess.run(
        [sys.executable, "-m", "holdwater", "run", *command, str(endings.SCRIPT), "CPU allocator"],
        capture_output=True, text=True, check=False, env=os.environ, timeout=120,
    )  # fmt: skip

    assert done.returncode == 1
    assert json.loads(verdict.read_text())["end"]["cause"] == "host memory"
    assert done.stderr.rstrip().rpartition("\n")[2].startswith("holdwater: ended for want of memory after step 30")


HANDLED = """
import os, signal, sys

def ring(number, frame):
    raise RuntimeError("rang")

class Ringing:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("holdwater.oom"):
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGUSR1)

signal.signal(signal.SIGUSR1, ring)
sys.meta_path.insert(0, Ringing())
raise OSError("Cannot allocate memory")
"""


def test_a_handler_that_raises_meanwhile_loses_nothing(tmp_path: Path) -> None:
    """PyTorch's does, when a worker was killed and the script has just failed to read from it."""
    script, verdict = tmp_path / "script.py", tmp_path / "v.json"
    script.write_text(HANDLED)
    command = ["--out", str(tmp_path / "run"), "--json", str(verdict), str(script)]
    done = subprocess.run(
        [sys.executable, "-m", "holdwater", "run", *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert "OSError: Cannot allocate memory\n" in done.stderr
    assert "rang" not in done.stderr
    assert json.loads(verdict.read_text())["end"]["by"] == "OSError: Cannot allocate memory"


def test_a_message_that_is_there_stays(
    endings: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the script has written for Kubernetes is its own; without such a file none is made."""
    message = tmp_path / "message"
    message.write_text("mine")
    for place, expected in ((message, "mine"), (tmp_path / "nowhere", None)):
        monkeypatch.setenv("HOLDWATER_TERMINATION_LOG", str(place))
        command = [sys.executable, "-m", "holdwater", "run", "--quiet", "--out", str(tmp_path / f"run-{expected}")]

        done = endings.subprocess.run([*command, str(endings.SCRIPT), "SIGKILL"], check=False, timeout=120)

        assert done.returncode == -signal.SIGKILL
        assert (place.read_text() if place.exists() else None) == expected
