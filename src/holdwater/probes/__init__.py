"""What is in use now: readings that only read, each with its price."""

from holdwater.probes.sample import DeviceMemory, Look, Sample

__all__ = ["DeviceMemory", "Look", "Sample"]
