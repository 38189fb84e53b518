"""Random states and settings of PyTorch: taken, and put back to the bit."""

import random
import subprocess
import sys

import numpy as np
import torch

from holdwater.random_states import random_states, restore_random_states
from holdwater.resume.exactness import exactness, restore_exactness


def draw() -> list[float]:
    """A number from each source of randomness."""
    return [random.random(), random.gauss(0, 1), float(np.random.rand()), float(torch.rand(()))]  # noqa: S311, NPY002


def test_every_source_goes_on_where_it_was() -> None:
    """Python's, NumPy's and PyTorch's, also with half a Gaussian pair in store."""
    random.gauss(0, 1)
    states = random_states()
    first = draw()

    restore_random_states(states)

    assert draw() == first


def test_threads_are_restored() -> None:
    """The bits of a sum depend on them."""
    before = exactness()
    torch.set_num_threads(1)

    remarks = restore_exactness(before)

    assert torch.get_num_threads() == before["threads"]
    assert remarks == []


def test_another_version_is_remarked_on() -> None:
    """It cannot be restored, so it is said."""
    assert restore_exactness(exactness() | {"torch": "1.0"})[0].startswith("torch was 1.0 and is")


def test_restoring_what_is_set_already_imports_nothing() -> None:
    """A resume needs no more memory than the run: PyTorch's setter alone imports 70 MB of compiler."""
    code = (
        "import sys\n"
        "from holdwater.resume.exactness import exactness, restore_exactness\n"
        "restore_exactness(exactness())\n"
        "print('torch._inductor' in sys.modules)\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"
