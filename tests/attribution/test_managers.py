"""What a multiprocessing manager keeps is known by the variable of the program that holds its proxy."""

import sys
import textwrap
from multiprocessing import managers, process
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from holdwater.attribution import managers as tested
from holdwater.attribution.managers import kept_by_manager
from holdwater.attribution.user_code import UsersModule

SOURCE = """
from multiprocessing import Manager
manager = Manager()
rows = manager.list()
table = manager.dict()
seen: object = manager.dict()
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What this process keeps, as if it were a manager's; the program is another."""
    kept: dict[str, Any] = {"0": (None, ())}
    program = tmp_path / "train.py"
    program.write_text(textwrap.dedent(SOURCE))
    monkeypatch.setattr(
        process.current_process(), "_manager_server", SimpleNamespace(id_to_obj=kept), raising=False
    )
    monkeypatch.setattr(tested, "users_modules", lambda: [UsersModule("__main__", str(program), {})])
    assert managers.__name__ in sys.modules
    return kept


def test_names_the_only_proxy_of_its_kind(server: dict[str, Any]) -> None:
    """A list that the program made by `manager.list()`; one by `list()` is its own."""
    server["a"] = ([1, 2], ("append",))

    ((kept, part),) = kept_by_manager()

    assert kept == [1, 2]
    assert (part.role, part.name, part.owner) == ("global", "rows", "__main__")


def test_names_the_kind_where_there_are_several(server: dict[str, Any]) -> None:
    """Nothing tells which of two variables it is; a queue is in no variable at all."""
    server["a"], server["b"] = ({1: 2}, ()), (SimpleNamespace(), ())

    assert [(part.name, part.file) for _, part in kept_by_manager()] == [("dict", None), ("SimpleNamespace", None)]


def test_is_nothing_in_another_process() -> None:
    """The program's own."""
    assert list(kept_by_manager()) == []
