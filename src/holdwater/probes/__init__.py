"""Read the memory that is in use now, without changing anything, and measure the cost of each reading."""

from holdwater.probes.sample import DeviceMemory, Look, Sample

__all__ = ["DeviceMemory", "Look", "Sample"]
