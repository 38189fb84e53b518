"""The calls of a program by which a library's object keeps something, read in the library's source."""

from pathlib import Path

import pytest

from holdwater.attribution.library_calls import calls_that_store, storing_functions
from holdwater.attribution.source import SourceFile

BASE = """
class Base:
    def __init__(self):
        self._models = []
    def _keep(self, model):
        self._models.append(model)
    def __setitem__(self, key, model):
        self._models.append(model)
"""
OWN = """
from base import Base
class Preparer(Base):
    def prepare(self, model):
        return self._prepare_one(model)
    def _prepare_one(self, model):
        return self._keep(model)
    def clear(self):
        self._models = []
"""
PROGRAM = """
preparer = Preparer()
for client in clients:
    model = preparer.prepare(make_model())
    loss = model(client)
    preparer.clear()
"""


@pytest.fixture
def library(tmp_path: Path) -> str:
    """The file of a class, whose base class lies beside it."""
    (tmp_path / "base.py").write_text(BASE)
    (tmp_path / "own.py").write_text(OWN)
    return str(tmp_path / "own.py")


def program(folder: Path, text: str) -> SourceFile:
    """A program."""
    (folder / "program").mkdir()
    (folder / "program" / "train.py").write_text(text)
    return SourceFile(str(folder / "program" / "train.py"))


def test_reports_the_call_that_leads_to_it(library: str, tmp_path: Path) -> None:
    """Through functions that only the library calls."""
    found = calls_that_store(program(tmp_path, PROGRAM), library, "_models")

    assert [one.text for one in found] == ["model = preparer.prepare(make_model())"]


def test_reports_the_most_direct_call(library: str, tmp_path: Path) -> None:
    """Not the one that makes it in turn."""
    text = f"{PROGRAM}\npreparer._keep(None)\n"

    found = calls_that_store(program(tmp_path, text), library, "_models")

    assert [one.text for one in found] == ["preparer._keep(None)"]


def test_ignores_what_only_has_its_name(library: str, tmp_path: Path) -> None:
    """A call of a model, and methods that make the list anew."""
    text = "preparer = Preparer()\npreparer.clear()\nloss = model(batch)\n"

    assert calls_that_store(program(tmp_path, text), library, "_models") == []


def test_ignores_what_everybody_calls(tmp_path: Path) -> None:
    """Where very many functions store, a call tells nothing."""
    methods = "\n".join(f"    def put{number}(self, it):\n        self.kept.append(it)" for number in range(70))
    (tmp_path / "own.py").write_text(f"class Own:\n{methods}\n")

    assert list(storing_functions(str(tmp_path / "own.py"), "kept")) == []


def test_ignores_a_library_without_source(tmp_path: Path) -> None:
    """Such as one in C."""
    assert list(storing_functions(str(tmp_path / "own.so"), "kept")) == []
