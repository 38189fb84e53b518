"""A folder with a channel in it, where there is room: $TMPDIR, shared memory, or the folder of the run.

Separate from the channel, so that an observed script does not import what makes folders.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdwater.errors import StoreError
from holdwater.process.channel import Channel, create_channel

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder in it is private to this user


@contextmanager
def channel_folder(out: Path) -> Iterator[Channel]:
    """Make a folder and a channel in it, and remove both afterwards.

    Args:
        out: The folder of the run, the last choice.

    Raises:
        StoreError: There is no room anywhere.
    """
    channel = _make_channel(out)
    try:
        yield channel
    finally:
        remove_channel(channel)


def _make_channel(out: Path) -> Channel:
    """Make both where there is room first."""
    reasons = []
    for root in (None, SHARED_MEMORY, out.resolve()):
        try:
            folder = Path(tempfile.mkdtemp(prefix="holdwater-", dir=root))
        except OSError as error:
            reasons.append(str(error))
            continue
        try:
            create_channel(folder / "channel")
            return Channel(folder / "channel")
        except StoreError as error:
            reasons.append(str(error))
            shutil.rmtree(folder, ignore_errors=True)
    raise StoreError(f"{'; '.join(reasons)}; free some space, or name another folder with TMPDIR")


def remove_channel(channel: Channel) -> None:
    """Unmap a channel, and remove its folder with all that its process has left there; again is no error.

    Args:
        channel: One of `channel_folder`.
    """
    channel.close()
    shutil.rmtree(channel.path.parent, ignore_errors=True)
