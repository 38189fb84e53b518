"""Copy the standard error of training processes, and report messages that say that Metal has run out of memory.

    python error_reader.py REPORTS          (standard input: what they write; standard error: where it goes)

It is run by its path, and is not a module to import. A process of its own, since a thread would end with the
process that it is in, and a supervisor has none. It ends when nobody can write any more.
"""

import os
import sys

SAY_SO = (
    b"kIOGPUCommandBufferCallbackErrorOutOfMemory",
    b"[METAL] Command buffer execution failed: Insufficient Memory",
    b"[metal::malloc] Resource limit (",
    b"[metal::malloc] Attempting to allocate",
    b"[metal::malloc] Unable to allocate",
)
"""What MLX and Metal write before the process is aborted."""
LONGEST = max(map(len, SAY_SO))


def main() -> None:
    """Copy until the end, and write a line to REPORTS for each message that is recognised."""
    reports, end = int(sys.argv[1]), b""
    while True:
        try:
            data = os.read(0, 1 << 16)
        except OSError:  # a terminal that nobody has open any more
            return
        if not data:
            return
        seen = end + data
        found = next((words for words in SAY_SO if words in seen), None)
        if found is not None:
            os.write(reports, found + b"\n")  # before the copy: the process may be gone by then
        end = b"" if found is not None else seen[-LONGEST:]
        _write(data)


def _write(data: bytes) -> None:
    """Write to standard error; one that is closed or full is not this process's business."""
    while data:
        try:
            data = data[os.write(2, data) :]
        except OSError:
            return


if __name__ == "__main__":
    main()
