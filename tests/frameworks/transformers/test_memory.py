"""The callback for the Transformers Trainer, called as the Trainer calls it."""

import importlib
import logging
import re
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from holdwater.errors import ConfigError

NAME = "holdwater.frameworks.transformers.memory"


@pytest.fixture
def callback(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class, with a stand-in for Transformers where that is not installed."""
    if importlib.util.find_spec("transformers") is None:
        stand_in = ModuleType("transformers")
        stand_in.TrainerCallback = object  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "transformers", stand_in)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    return importlib.import_module(NAME).MemoryCallback


def test_logs_every_few_steps_and_a_summary(callback: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Two lines in twenty steps, then the judgement and what is held."""
    one = callback(every=10, max_memory="4GB")
    state = SimpleNamespace(global_step=0)
    with caplog.at_level(logging.INFO, logger="holdwater"):
        one.on_train_begin(None, state, None)
        for step in range(1, 21):
            state.global_step = step
            one.on_step_end(None, state, None)
        one.on_train_end(None, state, None)

    lines = [record.getMessage() for record in caplog.records]
    assert [line.split(":")[0] for line in lines[:2]] == ["step 10", "step 20"]
    assert all(re.search(r"resident \d[\d.]* [MG]B", line) for line in lines[:2]), lines
    assert sum(line.startswith("step ") for line in lines) == 2
    assert one.summary["steps"] == 20
    assert f"memory: {one.summary['verdict']} after 20 steps" in lines
    assert any("graph nodes kept" in line for line in lines)


def test_refuses_no_step_between_two_lines(callback: Any) -> None:
    """Before training begins."""
    with pytest.raises(ConfigError, match="every is 0"):
        callback(every=0)


def test_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Transformers the import names the package."""
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, NAME, raising=False)

    with pytest.raises(ImportError, match="pip install transformers"):
        importlib.import_module(NAME)
