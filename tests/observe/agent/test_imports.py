"""Hooks that wait for an import."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from holdwater.observe.agent.imports import after_import


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that nobody has imported."""
    (tmp_path / "hw_waiting.py").write_text("value = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.delitem(sys.modules, "hw_waiting", raising=False)
    return "hw_waiting"


class TestAfterImport:
    """Each hook is called once, with the finished module."""

    def test_calls_the_hook_when_the_module_has_run(self, package: str) -> None:
        """And leaves no trace of itself on it."""
        seen: list[ModuleType] = []
        after_import({package: seen.append})
        assert seen == []

        module = __import__(package)

        assert seen == [module]
        assert module.value == 3
        assert type(module.__loader__).__name__ == "SourceFileLoader"

    def test_calls_at_once_what_is_imported_already(self) -> None:
        """Such as a framework that something else has loaded."""
        seen: list[ModuleType] = []

        after_import({"json": seen.append})

        assert [module.__name__ for module in seen] == ["json"]
