"""Variables of functions that run in other threads are left alone: their memory may go while it is read."""

import subprocess
import sys

CHURN = """
import faulthandler, sys, threading, time
from holdwater.attribution.frames import local_values, running_frames
faulthandler.enable()
sys.setswitchinterval(1e-6)
def deeper(depth, kept=None):
    mine = [depth]
    named = {depth: mine}
    return deeper(depth - 1, named) if depth else 0
def churn():
    while True:
        deeper(20)
for _ in range(3):
    threading.Thread(target=churn, daemon=True).start()
own, until = 'seen', time.time() + 5
while time.time() < until:
    for frame in running_frames():
        local_values(frame)
print('whole')
"""


class TestFramesOfThreads:
    """Threads that return from functions while those are read."""

    def test_reading_frames_beside_busy_threads_does_no_harm(self) -> None:
        """Five seconds with a switch of threads at every chance; this has crashed the process."""
        done = subprocess.run([sys.executable, "-c", CHURN], capture_output=True, text=True, check=False)

        assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr
