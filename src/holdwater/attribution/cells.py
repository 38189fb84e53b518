"""The cells of a notebook as source files: their code is in no file, but where tracebacks find their lines.

Source: Python documentation, `linecache`; IPython documentation, `IPython.core.compilerop` (each cell is compiled
under a file name of its own, and its lines are put there).
"""

import linecache
import os
import tempfile
from functools import lru_cache

TERMINAL = "<ipython-input-"
"""How the names of cells begin in IPython."""
MOST_CELLS = 200
"""The newest cells that count as sources."""


@lru_cache(maxsize=1)
def _kernels() -> str:
    """How the names of cells begin in a notebook's kernel, in any process."""
    return os.path.join(tempfile.gettempdir(), "ipykernel_")  # noqa: PTH118 - no path is followed


def is_cell(file: str) -> bool:
    """Whether a file name is one of a notebook's cells.

    Args:
        file: As in a code object.
    """
    return file.startswith((TERMINAL, _kernels()))


def cells() -> list[str]:
    """The file names of the newest cells, the newest first."""
    return [name for name in reversed(list(linecache.cache)) if is_cell(name)][:MOST_CELLS]


def text_of(file: str) -> str | None:
    """The code of a cell; None if it is not known.

    Args:
        file: Its file name.
    """
    entry = linecache.cache.get(file)
    return "".join(entry[2]) if entry is not None and len(entry) == 4 else None


def learn(file: str, text: str) -> None:
    """Make the code of another process's cell known here.

    Args:
        file: Its file name there.
        text: Its code.
    """
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
