"""Memory that a run will need, before it runs: predicted from shapes, without the device."""

from holdwater.plan.allocator import CachingAllocator
from holdwater.plan.peak import Part, Peak, predict

__all__ = ["CachingAllocator", "Part", "Peak", "predict"]
