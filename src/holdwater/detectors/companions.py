"""Leave out growth that only accompanies another.

Examples: stacks of threads, objects of device tensors, pinned pages, memory of CUDA graphs outside their pools.
"""

from holdwater.detectors.verdict import COUNTED, Component, Finding, VerdictKind

COMPANION = 0.1
"""Private host memory whose growth is at most this part of a device leak's belongs to that leak."""
SAME = 1.5
"""Pinned memory is mapped by the driver: the kernel counts the same bytes as shared, or as the driver's own."""
STACK = 48_000
"""Most bytes of a thread that was only started, or a file that was only opened: first pages of its stack and
arena, or a buffer."""
ARRAY = 2000
"""Most bytes of host memory that belong to one buffer: its array in Python and in the framework (680 bytes with
MLX 0.32)."""
_PRIVATE: frozenset[Component] = frozenset(("host.native", "host.python", "host.tensors", "host.retained"))
_IN_USE: frozenset[Component] = frozenset(("host.native", "host.python", "host.tensors"))
_OF_HANDLES: frozenset[Component] = frozenset(("host.native", "host.python", "host.retained"))


def without_companions(findings: list[Finding], *, device_in_heap: bool = False) -> list[Finding]:
    """Leave out findings whose growth is explained as a companion of another.

    Args:
        findings: One judgement's.
        device_in_heap: Whether the device's arrays are in the heap, so that their growth is seen twice.
    """
    pools = [one for one in findings if one.component == "device.reserved" and one.verdict == "leak"]
    reserved = max(map(_rate, pools), default=0.0)
    on_device = [one for one in findings if one.component.startswith("device.") and one.component not in COUNTED]
    device = max(map(_rate, on_device), default=0.0)
    spent_after = min((one.spent_after for one in on_device if _rate(one)), default=float("inf"))
    counted, handles, pinned = (
        _fastest(findings, name) for name in ("device.buffers", "process.handles", "host.pinned")
    )
    in_use = [one for one in findings if device_in_heap and one.component in _IN_USE]
    arrays = max(map(_rate, in_use), default=0.0)
    cached = _fastest(findings, "device.reserved") if device_in_heap else 0.0

    def goes_with_another(finding: Finding) -> bool:
        """Whether it grows little compared with a device leak, or by no more than what it is also counted as."""
        own = _rate(finding, "warming")
        of_device = finding.component in _PRIVATE and own <= COMPANION * device and not device_in_heap
        of_handles = finding.component in _OF_HANDLES and own <= STACK * handles
        of_counted = finding.component in _PRIVATE and own <= ARRAY * counted
        if finding.component == "device.buffers":  # their bytes meet a limit first
            return device > 0 and spent_after <= finding.spent_after
        of_pools = finding.component == "device.active" and own <= COMPANION * reserved
        of_arrays = finding.component == "device.active" and own <= SAME * arrays
        of_cached = finding.component == "host.retained" and own <= SAME * cached
        of_pinned = finding.component in {"host.shared", "host.native"} and own <= SAME * pinned
        return own > 0 and any((of_device, of_handles, of_counted, of_pinned, of_pools, of_arrays, of_cached))

    return [finding for finding in findings if not goes_with_another(finding)]


def _fastest(findings: list[Finding], component: Component) -> float:
    """The fastest growth of a component, as `_rate`."""
    return max((_rate(one) for one in findings if one.component == component), default=0.0)


def _rate(finding: Finding, *also: VerdictKind) -> float:
    """Growth of a leak (or another verdict) in bytes, or handles, per step; 0 for others."""
    if finding.verdict not in {"leak", "fragmentation", *also} or finding.rate is None:
        return 0.0
    return finding.rate.bytes_per_step
