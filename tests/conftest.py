"""What several tests need: the installed command, and a small text to train on."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def holdwater(tmp_path: Path) -> Run:
    """Run the installed command in a subprocess, in an empty folder of its own."""

    def run(*arguments: str, timeout: float = 240, **options: object) -> "subprocess.CompletedProcess[str]":
        command = [str(Path(sys.executable).with_name("holdwater")), *arguments]
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
