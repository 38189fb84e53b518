"""Take a class from Transformers, or say what is to be installed."""

from importlib import import_module
from typing import Any


def from_transformers(name: str, what: str = "the callback") -> Any:  # noqa: ANN401 - a class
    """A class of Transformers.

    Args:
        name: Its name.
        what: What needs it, for the message.

    Raises:
        ImportError: Transformers is not installed.
    """
    try:
        return getattr(import_module("transformers"), name)
    except ImportError as missing:
        raise ImportError(
            f"{what} needs Transformers, which is not installed; write: pip install transformers"
        ) from missing
