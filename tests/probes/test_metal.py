"""Tests of the readings of macOS and Metal, with a stand-in where this machine has none."""

import struct
import sys
from types import ModuleType, SimpleNamespace

import pytest

from holdwater.budget import InUse
from holdwater.probes.devices import DevicePeak, Mlx, device_in_use, find_device, is_unified
from holdwater.probes.machine import read_machine
from holdwater.probes.metal import (
    Allocator,
    DeviceLimits,
    MacOS,
    MetalBuffers,
    MetalProcess,
    estimate_buffers,
    footprint_of,
    limits_of,
    metal,
    read_allocator,
)
from holdwater.probes.observer import Observer
from holdwater.testing import ManualClock, StandInMetal
from holdwater.units import Bytes, Step


class TestReadingTheSystem:
    """What macOS answers."""

    def test_reads_the_fields_of_the_kernels_answer(self) -> None:
        """The fields of `task_vm_info` lie where xnu's header puts them."""
        fields = [1 << 40, 7, 16384, *range(2, 19)]  # virtual size, regions, page size, then sizes in order

        found = footprint_of(struct.pack("<QII17Q", *fields))

        assert (found.total, found.private, found.compressed) == (18, 6 + 15, 15)

    @pytest.mark.skipif(sys.platform != "darwin", reason="only macOS counts a footprint")
    def test_a_mac_tells_its_footprint(self) -> None:
        """The footprint of a running process is some megabytes at least."""
        found = MacOS().footprint()

        assert found is not None
        assert found.total > 5_000_000

    @pytest.mark.skipif(sys.platform == "darwin", reason="this machine may have Metal")
    def test_another_system_has_no_metal(self) -> None:
        """On Linux nothing is read, and the probes say why."""
        assert metal() is None
        assert MetalProcess().unavailable() == "this system has no Metal"
        assert MetalBuffers().unavailable() == "this system has no Metal"

    def test_takes_what_the_device_tells_of_its_limits(self) -> None:
        """The keys of `device_info` depend on the device: a CPU has none of them."""
        info = {"max_recommended_working_set_size": 115_448_725_504, "resource_limit": 499_000}

        assert limits_of(info) == DeviceLimits(Bytes(115_448_725_504), 499_000)
        assert limits_of({"device_name": "AMD EPYC"}) == DeviceLimits(None, None)


class TestMlxCounters:
    """MLX's own counters, on any machine on which it runs."""

    def test_reads_active_memory_and_cache(self) -> None:
        """An array of a known size is seen in active memory."""
        mlx = pytest.importorskip("mlx.core")
        before = read_allocator(mlx)
        kept = mlx.ones((1000, 1000))
        mlx.eval(kept)

        found = read_allocator(mlx)

        assert isinstance(found, Allocator)
        assert found.active - before.active == 4_000_000
        assert found.peak >= found.active

    def test_estimates_buffers_by_the_arrays_that_python_knows(self) -> None:
        """A thousand more arrays are a thousand more buffers, and the number is called an estimate."""
        mlx = pytest.importorskip("mlx.core")
        mlx.clear_cache()
        before = estimate_buffers(mlx)
        kept = [mlx.array(float(number)) for number in range(1000)]
        mlx.eval(kept)

        found = estimate_buffers(mlx)

        assert found.is_estimate
        assert 1000 <= found.count - before.count < 1100


class TestStandIn:
    """A Mac that is rehearsed."""

    def test_a_sample_has_the_footprint_and_the_number_of_buffers(self) -> None:
        """Each sample has them, though buffers are counted by the clock."""
        mac = StandInMetal(active=5_000, cache=1_000, private=700, other=300, buffer_count=42)
        with mac.installed():
            observer = Observer(ManualClock().elapsed)
            sample = observer.sample(Step(0), everything=True)
            observer.close()

        assert sample.device is not None
        assert (sample.device.allocated, sample.device.reserved) == (5_000, 6_000)
        assert (sample.device.footprint, sample.device.beside, sample.device.buffers) == (7_000, 1_000, 42)
        assert sample.look is not None
        assert (sample.look.device_other, sample.look.device_buffers, sample.look.pressure_level) == (300, 42, 1)
        assert sum(observer_in_use(mac)) == 7_000

    def test_the_peak_is_mlx_s_own(self) -> None:
        """The high-water mark that is reported is that of MLX."""
        mac = StandInMetal(active=9_000)
        with mac.installed():
            mac.allocator()
            mac.active = 100

            assert DevicePeak().read() == {"device_peak": 9_000}

    def test_the_machine_is_one_pool_with_the_devices_limits(self) -> None:
        """Host and device are one pool, and the device tells what it recommends."""
        with StandInMetal(active=1, working_set=72, most_buffers=5).installed():
            machine = read_machine(device="mlx")

        assert (machine.unified, machine.working_set, machine.buffers) == (True, 72, 5)

    @pytest.mark.skipif(sys.platform == "darwin", reason="this machine may have Metal")
    def test_without_metal_mlx_is_no_device_of_its_own_pool(self) -> None:
        """On Linux MLX's arrays are ordinary memory of the host."""
        assert not is_unified("mlx")
        assert not read_machine(device="mlx").unified

    def test_mlx_is_read_where_pytorch_is_loaded_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """PyTorch may be imported by a library, and its MPS device is there on each Mac."""
        torch = ModuleType("torch")
        vars(torch)["cuda"] = SimpleNamespace(is_initialized=lambda: False)
        vars(torch)["version"] = SimpleNamespace(cuda=None, hip=None)
        vars(torch)["__version__"] = "2.13"
        vars(torch)["backends"] = SimpleNamespace(mps=SimpleNamespace(is_available=lambda: True))
        monkeypatch.setitem(sys.modules, "torch", torch)
        mac = StandInMetal()
        with mac.installed():
            before = [find_device(), device_in_use()]
            mac.active = 5_000
            after = [find_device(), device_in_use()]

        assert [probe and probe.name for probe in before] == ["mps", "mps"]
        assert [probe and probe.name for probe in after] == ["mlx", "mlx"]

    def test_mlx_counts_as_loaded_where_the_stand_in_has_counters(self) -> None:
        """A rehearsal needs no MLX."""
        with StandInMetal(active=1).installed():
            assert Mlx().unavailable() is None


def observer_in_use(mac: StandInMetal) -> InUse:
    """What an observer says is in use on a rehearsed Mac, by pool."""
    with mac.installed():
        observer = Observer(ManualClock().elapsed)
        found = observer.in_use()
        observer.close()
    return found
