"""What malloc keeps of decoded pictures."""

import ctypes
import subprocess
import sys
from types import SimpleNamespace

import pytest

from holdwater.train.finetune.vision.malloc import map_large_pieces

DECODING = """
import sys, threading
import numpy as np
from holdwater.probes.statm import read_resident
from holdwater.train.finetune.vision.malloc import map_large_pieces

if sys.argv[1] == "mapped":
    map_large_pieces()

def decode(number):
    for size in (16, 5, 9, 21, 12):
        np.ones((size + number) << 17)  # of 8 bytes: megabytes

decode(0)
before = read_resident()
for turn in range(5):
    threads = [threading.Thread(target=decode, args=(number,)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
print((read_resident() - before) / 1e6)
"""


def kept(how: str) -> float:
    """Megabytes that stay of what threads have freed."""
    done = subprocess.run([sys.executable, "-c", DECODING, how], capture_output=True, text=True, check=True)
    return float(done.stdout)


def test_freed_pictures_go_back_to_the_kernel() -> None:
    """Whichever thread decoded them; by itself each thread's arena keeps some."""
    assert kept("mapped") < 4
    assert kept("as it is") > 8


def test_other_libraries_have_no_such_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing follows: musl has no `mallopt`."""
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())

    map_large_pieces()
