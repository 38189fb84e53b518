"""Growth that only goes with another is not named beside it."""

import pytest

from holdwater.detectors.companions import without_companions
from holdwater.detectors.verdict import Component, Finding, Rate, VerdictKind
from holdwater.units import Step


def growing(component: Component, rate: float, verdict: VerdictKind = "leak") -> Finding:
    """A finding that grows by so much each step."""
    return Finding(
        verdict=verdict, component=component, detected_step=Step(9), message="", rate=Rate(rate, rate, rate, 0.95)
    )


class TestWithoutCompanions:
    """Of a device's leak, and of handles."""

    def test_leaves_out_the_objects_of_device_tensors(self) -> None:
        """A kilobyte of Python for each tensor of 64 kB."""
        device, host = growing("device.active", 65_536), growing("host.python", 1000)

        assert without_companions([host, device]) == [device]

    def test_keeps_a_leak_of_the_host_beside_one_of_the_device(self) -> None:
        """Half as large."""
        findings = [growing("device.active", 65_536), growing("host.python", 30_000)]

        assert without_companions(findings) == findings

    def test_leaves_out_the_stacks_of_threads(self) -> None:
        """17 kB for each thread that is started."""
        threads = growing("process.handles", 1)

        assert without_companions([growing("host.python", 17_000), threads]) == [threads]

    @pytest.mark.parametrize(("active", "left"), [(50_000, 1), (5_000_000, 2)])
    def test_leaves_out_what_graphs_give_out_beside_their_pools(self, active: float, left: int) -> None:
        """50 kB of results for each pool of 20 MB; half as much is a leak of its own."""
        findings = [growing("device.active", active), growing("device.reserved", 20e6)]

        assert len(without_companions(findings)) == left

    def test_keeps_what_is_in_use_beside_fragmentation(self) -> None:
        """Tensors that grow leave blocks behind, larger than themselves: they are the cause."""
        findings = [growing("device.active", 50_000), growing("device.reserved", 20e6, "fragmentation")]

        assert without_companions(findings) == findings

    @pytest.mark.parametrize("component", ["host.tensors", "host.shared"])
    def test_keeps_what_threads_are_given(self, component: Component) -> None:
        """Tensors are no stacks."""
        findings = [growing(component, 17_000), growing("process.handles", 1)]

        assert without_companions(findings) == findings

    def test_what_is_flat_accompanies_nothing(self) -> None:
        """A finding that says that memory does not grow."""
        findings = [growing("host.native", 5, "flat"), growing("device.active", 65_536)]

        assert without_companions(findings) == findings

    @pytest.mark.parametrize(
        ("host", "left"), [("host.tensors", "host.tensors"), ("host.retained", "device.active")]
    )
    def test_leaves_out_arrays_that_are_in_the_heap(self, host: Component, left: Component) -> None:
        """MLX without a device: the same bytes are counted by malloc, and by MLX; free heap is no array."""
        findings = [growing(host, 131_000), growing("device.active", 130_000)]

        assert without_companions(findings, device_in_heap=True)[-1].component == left
        assert without_companions(findings) == findings

    def test_leaves_out_free_heap_that_is_a_cache_of_buffers(self) -> None:
        """MLX keeps them, and malloc with it."""
        cache = growing("device.reserved", 93_000)

        assert without_companions(
            [growing("host.retained", 95_000, "fragmentation"), cache], device_in_heap=True
        ) == [cache]
