"""Note the names of the shared memory that a script makes: a file that nobody holds any more tells no owner."""

import contextlib
import functools
import os
from pathlib import Path
from types import ModuleType
from typing import Any

NOTED = "shared-memory"
"""The file of a session's folder in which the names stand, a line each."""


def watch_shared_memory(folder: Path, module: ModuleType) -> None:
    """Note what is made from now on, here and in forked children (module `multiprocessing.shared_memory`).

    Args:
        folder: Of the session.
        module: The one that makes it.
    """
    original = module.SharedMemory.__init__
    place = str(folder / NOTED)

    @functools.wraps(original)
    def noted(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - the class is the standard library's
        """Make or open it, and note its name if it was made."""
        original(self, *args, **kwargs)
        with contextlib.suppress(Exception):  # a note that cannot be made is no concern of the script's
            if kwargs.get("create", args[1] if len(args) > 1 else False):
                line = f"{self._name.lstrip('/')}\n"  # `name` may be a property of the user's
                file = os.open(place, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    os.write(file, line.encode())
                finally:
                    os.close(file)

    module.SharedMemory.__init__ = noted
