"""The data that a script makes before its loop: each process of a run must have made the same."""

from collections.abc import Mapping

from holdwater.exit_codes import MISTAKE
from holdwater.observe.agent import session as sessions
from holdwater.resume.fingerprint import other_input


def compare_inputs(before: Mapping[str, int], leaves: Mapping[str, object]) -> None:
    """End the script if the data that it has made before its loop differ from those of an earlier process.

    Args:
        before: Those of the earlier process, as checksums.
        leaves: Those of this process.

    Raises:
        SystemExit: They differ, so that this process cannot continue exactly.
    """
    path = other_input(before, dict(leaves))
    if path is None:
        return
    sessions.say(
        f"this process cannot go on exactly: {path} is made before the loop, and was another one in the "
        "process before; make it from a seed, or register it with holdwater.resumable in a dictionary"
    )
    raise SystemExit(MISTAKE)
