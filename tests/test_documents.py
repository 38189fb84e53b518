"""Rules of the check of documents for assistants: what they name must exist."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def check_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The check, in a folder of its own."""
    spec = importlib.util.spec_from_file_location(
        "check_docs", Path(__file__).parents[1] / "docs" / "check_docs.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "FOR_ASSISTANTS", ("page.md",))
    return module


def test_reports_commands_and_flags_that_do_not_exist(check_docs: ModuleType, tmp_path: Path) -> None:
    """In backquotes, in shell blocks, and anywhere in the text."""
    (tmp_path / "page.md").write_text("`holdwater walk x.py`\n```sh\nholdwater doctor --loud\n```\nor --lout\n")

    mistakes = " ".join(check_docs.check_calls())

    assert "the command `holdwater walk`, which does not exist" in mistakes
    assert "--loud of `holdwater doctor`" in mistakes
    assert "--lout" in mistakes


def test_ignores_those_that_do(check_docs: ModuleType, tmp_path: Path) -> None:
    """What follows the command is its own."""
    (tmp_path / "page.md").write_text(
        "`holdwater run --json FILE t.py`, holdwater is a library, `%%holdwater FOLDER`\n"
    )

    assert check_docs.check_calls() == []
