"""Leave word of a run's end where the machine that started it looks: Kubernetes' termination message.

Source: Kubernetes documentation, "Determine the Reason for Pod Failure" (`terminationMessagePath`).
"""

import os
from pathlib import Path

from holdwater.exit_codes import TERMINATION_LOG

MESSAGE = Path("/dev/termination-log")
"""A variable names another file, for pods whose `terminationMessagePath` is not the usual one."""
LONGEST = 4096
"""Bytes that Kubernetes reads."""


def leave_message(text: str) -> None:
    """Write why a run ended, if there is such a file and nobody has written there.

    Args:
        text: One paragraph.
    """
    place = Path(os.environ.get(TERMINATION_LOG) or MESSAGE)
    if place.is_file() and place.stat().st_size == 0:
        place.write_bytes(text.encode()[:LONGEST])
