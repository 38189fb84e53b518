"""Make and remove folders without losing what a script's signal handler raises meanwhile.

`Path.mkdir(exist_ok=True)` and `shutil.rmtree` catch each OSError themselves, a handler's `TimeoutError` included.
"""

import os
from pathlib import Path

from holdwater.signal_errors import not_the_scripts, suppressed


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, where they do not exist.

    Args:
        folder: The folder.

    Raises:
        FileExistsError: A file has this name.
    """
    try:
        folder.mkdir(parents=True)
    except not_the_scripts(FileExistsError):
        if not folder.is_dir():
            raise


def remove_folder(folder: Path) -> None:
    """Remove a folder as far as that is possible.

    Args:
        folder: It may be absent.
    """
    with suppressed(OSError):
        for name in os.listdir(folder):  # noqa: PTH208 - all names at once
            try:
                (folder / name).unlink()
            except not_the_scripts(OSError):  # a folder
                remove_folder(folder / name)
        folder.rmdir()
