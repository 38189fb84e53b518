"""The history of a run's memory in bounded space, with every peak."""

from holdwater.timeline.buckets import SERIES, Buckets
from holdwater.timeline.timeline import Timeline

__all__ = ["SERIES", "Buckets", "Timeline"]
