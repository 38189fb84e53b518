"""The command in the process of a test."""

import logging
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from holdwater.cli.main import main

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process, in an empty folder of its own."""
    monkeypatch.chdir(tmp_path)
    logger = logging.getLogger("holdwater")
    for name, value in (("handlers", []), ("propagate", False), ("level", logging.INFO)):
        monkeypatch.setattr(logger, name, value)

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        """As `subprocess.run`."""
        code = main(arguments)
        told = capsys.readouterr()
        return subprocess.CompletedProcess(["holdwater", *arguments], code, told.out, told.err)

    return run
