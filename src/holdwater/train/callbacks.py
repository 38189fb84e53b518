"""The user's own function that a training loop calls after each step."""

import importlib
import os
import sys
from collections.abc import Callable

from holdwater.errors import ConfigError
from holdwater.guard.guard import Guard


def find_callback(name: str) -> Callable[[Guard], None]:
    """Import the function that `--callback` names.

    Args:
        name: `module:function`; modules in the working folder are found.

    Returns:
        The function.

    Raises:
        ConfigError: There is no such module or function.
    """
    module, _, function = name.partition(":")
    sys.path.insert(0, os.getcwd())  # noqa: PTH109 - as `python -m` does
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"--callback {name}: {error}; write module:function, both importable from here"
        ) from None
    if not callable(found):
        raise ConfigError(f"--callback {name} is no function; write module:function")
    return found  # type: ignore[no-any-return] # what a user's module holds
