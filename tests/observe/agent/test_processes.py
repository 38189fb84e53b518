"""What a process has open, by its own list."""

import os

import pytest

from holdwater.observe.agent.processes import open_files

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="only Linux lists them there")  # noqa: PTH112


def test_lists_a_file_that_takes_the_number_of_the_list_itself() -> None:
    """Listing opens a file too, under the lowest free number: the one that the program gets next."""
    before = open_files()
    opened = os.open(os.devnull, os.O_RDONLY)
    try:
        after = open_files()
    finally:
        os.close(opened)

    assert after - before == {str(opened)}
    assert open_files() == before
