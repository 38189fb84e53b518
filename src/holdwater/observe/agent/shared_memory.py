"""Record the names of shared memory that a script creates: a file that no process holds shows no owner."""

import functools
import os
from pathlib import Path
from types import ModuleType
from typing import Any

from holdwater.signal_errors import suppressed

NOTED = "shared-memory"
"""The file in a session's folder that holds the names, one a line."""


def watch_shared_memory(folder: Path, module: ModuleType) -> None:
    """Record what is created from now on, here and in forked children (module `multiprocessing.shared_memory`).

    Args:
        folder: The session's.
        module: `multiprocessing.shared_memory`.
    """
    original = module.SharedMemory.__init__
    place = str(folder / NOTED)

    @functools.wraps(original)
    def noted(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - the class is the standard library's
        """Create or open it, and record its name if it was created."""
        original(self, *args, **kwargs)
        with suppressed(Exception):  # a failed record must not reach the script
            if kwargs.get("create", args[1] if len(args) > 1 else False):
                line = f"{self._name.lstrip('/')}\n"  # `name` may be a property of a user's subclass
                file = os.open(place, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    os.write(file, line.encode())
                finally:
                    os.close(file)

    module.SharedMemory.__init__ = noted
