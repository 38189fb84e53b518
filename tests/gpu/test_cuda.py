"""On a CUDA device: probes, limits and training. Runs on a machine that has one; skips elsewhere."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from holdwater.actions.frameworks import clear_caches, synchronise
from holdwater.actions.limits import set_framework_limits
from holdwater.budget import Budget
from holdwater.probes import devices
from holdwater.probes.devices import Cuda, CudaDriver, Pinned
from holdwater.probes.machine import read_machine
from holdwater.units import Bytes

Run = Callable[..., "subprocess.CompletedProcess[str]"]
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]
MB = 10**6


class TestCuda:
    """Readings of the device."""

    def test_sees_what_the_allocator_holds(self) -> None:
        """400 MB allocated and reserved; freed and cleared, they are gone."""
        before = Cuda().read()
        block = torch.empty(100 * MB, device="cuda")
        held = Cuda().read()
        del block
        synchronise()
        clear_caches()
        after = Cuda().read()

        assert held is not None
        assert held.allocated - (before.allocated if before else 0) >= 400 * MB
        assert held.reserved >= held.allocated
        assert after is not None
        assert after.reserved <= held.reserved - 400 * MB

    def test_counts_what_another_process_of_the_run_holds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A weight server of weights: against the budget it is the run's own."""
        torch.empty(MB, device="cuda")
        before = Cuda().read()
        monkeypatch.setattr(devices.EXTERNAL, "held", Bytes(700 * MB))
        held = Cuda().read()

        assert before is not None
        assert held is not None
        assert held.reserved - before.reserved == held.allocated - before.allocated == 700 * MB

    def test_the_driver_sees_more_than_the_allocator(self) -> None:
        """Context and other processes included."""
        torch.empty(1, device="cuda")
        held = Cuda().read()

        assert held is not None
        assert CudaDriver().read()["device_used"] > held.reserved

    def test_sees_pinned_host_memory(self) -> None:
        """A pinned block of 64 MB."""
        before = Pinned().read().get("pinned", 0)
        block = torch.empty(64 * MB, dtype=torch.uint8, pin_memory=True)

        assert Pinned().read()["pinned"] - before >= block.nbytes

    def test_the_budget_becomes_the_process_fraction(self) -> None:
        """Old and new value are said, and the allocator keeps the new one."""
        torch.empty(1, device="cuda")
        try:
            changes = set_framework_limits(Budget(Bytes(4 * 10**9), "given", ""))

            assert "CUDA memory of this process: 100.0% of" in str(changes[0])
            with pytest.raises(torch.OutOfMemoryError):
                torch.empty(8 * 10**9, dtype=torch.uint8, device="cuda")
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
            torch.cuda.empty_cache()

    def test_the_device_bounds_the_budget(self) -> None:
        """A card of 80 GB is no card of 120 GB."""
        assert read_machine(device="cuda").device_size == torch.cuda.get_device_properties(0).total_memory


def test_training_on_the_device_is_flat(holdwater: Run, tmp_path: Path) -> None:
    """The main job, with device memory constant."""
    done = holdwater(
        *("train", "--preset", "small", "--steps", "1500", "--out", "run", "--json", "out.json"),
        *("--device", "cuda", "--max-memory", "8GB"),
    )

    verdict = json.loads((tmp_path / "out.json").read_text())
    device = [finding for finding in verdict["findings"] if finding["component"] == "device.active"]
    assert done.returncode == 0, done.stderr
    assert verdict["verdict"] in {"flat", "bounded"}
    assert device[0]["verdict"] in {"flat", "bounded"}
    assert abs(device[0]["rate"]["bytes_per_step"]) < 1
    assert verdict["peak"]["device_bytes"] > MB
    assert "CUDA memory of this process" in done.stderr
