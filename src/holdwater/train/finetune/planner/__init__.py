"""Memory that a run will need, before it runs: predicted from shapes, without the device."""

from holdwater.train.finetune.planner.allocator import CachingAllocator
from holdwater.train.finetune.planner.peak import Peak, PeakPart, predict

__all__ = ["CachingAllocator", "Peak", "PeakPart", "predict"]
