"""The witness: a process that blocks signals, and answers which of them it got.

    python witness.py SOCKET [WORDS OF THE SCRIPT'S COMMAND LINE ...]

A question is one byte, the signal's number; the answer is 1 or 0. `signals` starts it with all signals blocked,
in the process group of the script. The kernel signals the youngest process of a group first, so the older process
that asks has received its own signal after this one. Who signals one process after another, as `pkill` and batch
systems do, may come here a little later. It ends when the other side closes the socket.
"""

import os
import select
import signal
import socket
import sys
import time

GRACE = 0.05
"""Seconds to wait for a signal that somebody sends to one process after another."""
ONE_CALL = 1.0
"""Seconds after which a signal that was not asked for is forgotten: it was sent to this process alone."""


def main() -> None:
    """Answer until the other side has ended."""
    link = socket.socket(fileno=int(sys.argv[1]))
    os.closerange(0, min(3, link.fileno()))  # whoever reads the script's output must not wait for this process
    held = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    got: dict[int, float] = {}
    while True:
        asked = link.recv(1) if select.select([link], [], [], ONE_CALL / 2)[0] else None
        if asked == b"":
            os._exit(0)
        while (found := signal.sigtimedwait(held, 0)) is not None:
            got[found.si_signo] = time.monotonic()
        if asked is None:
            continue
        number = asked[0]
        recent = time.monotonic() - got.pop(number, float("-inf")) < ONE_CALL
        link.send(b"\1" if recent or signal.sigtimedwait({number}, GRACE) is not None else b"\0")


if __name__ == "__main__":
    try:
        main()
    except OSError:  # the other side has ended
        os._exit(0)
