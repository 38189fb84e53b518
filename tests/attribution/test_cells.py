"""Rules of a notebook's cells as source files."""

import linecache

from holdwater.attribution.cells import is_cell, learn, text_of
from holdwater.attribution.source import parse
from holdwater.attribution.user_code import is_users

CELL = "<ipython-input-7-0a1b2c3d4e5f>"


def test_accepts_a_cell_as_the_users_own_code() -> None:
    """Its lines are found although there is no file."""
    learn(CELL, "kept = []\nkept.append(1)\n")
    try:
        source = parse(CELL)

        assert is_users(CELL)
        assert source is not None
        assert source.stores("kept")[0].line == 2
    finally:
        del linecache.cache[CELL]


def test_ignores_other_code_without_a_file() -> None:
    """What a library compiles from a string is not the user's."""
    assert not is_cell("<string>")
    assert not is_users("<string>")
    assert text_of(CELL) is None
