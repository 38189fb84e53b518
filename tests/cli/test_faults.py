"""What goes wrong inside the observer never reaches the script, and is said."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Observe = Callable[..., tuple["subprocess.CompletedProcess[str]", dict[str, Any]]]

LEAK = """
import torch
from torch import nn
model = nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
kept = []
def train(steps):
    for _ in range(steps):
        model(torch.randn(4, 8)).mean().backward()
        optimizer.step(); optimizer.zero_grad()
        kept.append(torch.ones(100_000))
"""


BROKEN_COUNT = """
from holdwater.attribution.census import CensusTaker
def boom(*_): raise OSError('no objects today')
CensusTaker.turns = boom
"""
"""From here on the objects of this process cannot be counted."""


@pytest.mark.alone
class TestFaults:
    """Objects that cannot be counted, a look that fails, a run folder that is gone, a shape that is none."""

    def test_a_count_that_fails_is_told_and_the_leak_still_found(self, observe: Observe) -> None:
        """The collector's list of objects cannot be had."""
        done, verdict = observe(BROKEN_COUNT + LEAK + "train(300); print('trained')\n")

        assert (done.returncode, done.stdout) == (0, "trained\n")
        assert verdict["verdict"] == "leak"
        assert any("no objects today" in error for error in verdict["errors"])

    def test_a_look_that_fails_ends_the_looking_not_the_script(self, observe: Observe) -> None:
        """Python's block count cannot be had."""
        broken = "import sys\ndef boom(): raise OSError('no blocks')\nsys.getallocatedblocks = boom\n"

        done, verdict = observe(broken + LEAK + "train(60); print('trained')\n")

        assert (done.returncode, done.stdout) == (0, "trained\n")
        assert "this run is not observed any more" in done.stderr
        assert verdict["steps"] == 60

    def test_a_run_folder_that_is_removed_costs_the_history_only(self, observe: Observe, tmp_path: Path) -> None:
        """The script ends as it would; the verdict as JSON is written all the same."""
        loop = "import shutil\ntrain(100)\nshutil.rmtree('run')\ntrain(100); print('trained')\n"

        done, verdict = observe(LEAK + loop, "--out", "run")

        assert (done.returncode, done.stdout) == (0, "trained\n")
        assert "Traceback" not in done.stderr
        assert verdict["verdict"] == "leak"

    def test_a_batch_of_odd_things_passes_unharmed(self, observe: Observe) -> None:
        """A shape that cannot be compared; the loader's batches are what they would be."""
        loop = """
class Odd:
    shape = [[1], [2]]
from torch.utils.data import DataLoader
print(len(list(DataLoader([Odd(), Odd()], batch_size=None))), len(list(DataLoader([1, 2, 3]))))
train(30)
"""
        done, _ = observe(LEAK + loop)

        assert (done.returncode, done.stdout) == (0, "2 3\n")

    def test_a_window_that_fails_leaves_nothing_on(self, observe: Observe) -> None:
        """Objects cannot be counted once the recording runs; afterwards nothing records, and nothing traces."""
        loop = (
            """
import sys
import memray
from holdwater.observe.agent import session
current = session.current()
while not current._counts.counted_at or current._counts.busy:
    train(1)
(current.folder / "window-99").write_text("")
current._open_window(99)
"""
            + BROKEN_COUNT
            + """
while current._window is not None:  # until the count that ends it
    train(1)
with memray.Tracker('free.bin'):  # refused while another one records
    print('trained', sys.gettrace())
"""
        )
        done, verdict = observe(LEAK + loop)

        assert (done.returncode, done.stdout) == (0, "trained None\n")
        assert any("no objects today" in error for error in verdict["errors"])
