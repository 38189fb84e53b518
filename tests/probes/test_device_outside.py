"""How often the memory of a device is read from outside."""

import os
import time

import pytest

from holdwater.probes import outside
from holdwater.probes.outside import DEVICE_PAUSE, DeviceRoom, Outside


@pytest.mark.parametrize(("held", "read_again"), [(10**9, True), (0, False)])
def test_is_read_between_readings_of_children(
    monkeypatch: pytest.MonkeyPatch, held: int, read_again: bool
) -> None:
    """It is one reading, and cheap; where the process holds none, no driver is asked each time."""
    monkeypatch.setattr(outside, "_device_memory", lambda _: DeviceRoom(held, 10**9, 2 * 10**9))
    process = Outside(os.getpid())
    first = process.read()
    time.sleep(1.2 * DEVICE_PAUSE)

    second = process.read()

    assert first is not None
    assert second is not None
    assert first["device_used"] == held
    assert "open_files" not in second
    assert ("device_used" in second) == read_again


def test_a_reading_that_costs_much_is_made_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten milliseconds of the processor's time each, in a run of an hour."""

    def slow(_: int) -> DeviceRoom:
        until = time.thread_time() + 0.01
        while time.thread_time() < until:
            pass
        return DeviceRoom(1, 1, 2)

    monkeypatch.setattr(outside, "_device_memory", slow)
    process = Outside(os.getpid())
    process._began -= 3600

    began = time.perf_counter()
    process.read()

    assert process._device_due - began > 5
