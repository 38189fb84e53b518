"""What several tests need: the installed command, and a small text to train on."""

import gc
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # for scripts: threads that spin slow down other tests
torch.set_num_threads(1)  # in this process; a test that counts threads sets them

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Observe = Callable[..., tuple["subprocess.CompletedProcess[str]", dict[str, Any]]]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need a device have it to themselves."""
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker("alone")


def pytest_collection_finish() -> None:
    """Leave what was imported out of each collection and count: it is most of a test process."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def imports_collected() -> Iterator[None]:
    """For tests that need what was imported to be collected and counted."""
    gc.unfreeze()
    yield
    gc.freeze()


@pytest.fixture
def holdwater(tmp_path: Path) -> Run:
    """Run the installed command in a subprocess, in an empty folder of its own."""

    def run(*arguments: str, timeout: float = 240, **options: object) -> "subprocess.CompletedProcess[str]":
        installed = Path(sys.executable).with_name("holdwater")
        program = [str(installed)] if installed.exists() else [sys.executable, "-m", "holdwater"]
        command = [*program, *arguments]
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            command, cwd=tmp_path, capture_output=True, text=True, timeout=timeout, check=False, **options
        )

    return run


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    """A text of 20 kB that is easy to learn."""
    path = tmp_path / "text.txt"
    path.write_text("".join(f"line {number}: the quick brown fox\n" for number in range(600)), encoding="utf-8")
    return path


@pytest.fixture
def observe(tmp_path: Path) -> Observe:
    """Run a script under the installed command; return what it did and the verdict."""

    def run(
        script: str, *options: str, arguments: tuple[str, ...] = (), **environment: str
    ) -> tuple["subprocess.CompletedProcess[str]", dict[str, Any]]:
        (tmp_path / "script.py").write_text(textwrap.dedent(script), encoding="utf-8")
        program = str(Path(sys.executable).with_name("holdwater"))
        command = [program, "run", "--json", "v.json", "--quiet", *options, "script.py", *arguments]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
            env=os.environ | environment,
        )
        verdict = tmp_path / "v.json"
        return done, json.loads(verdict.read_text()) if verdict.exists() else {}

    return run
