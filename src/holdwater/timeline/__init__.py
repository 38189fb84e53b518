"""How memory got where it is: the history of a run, in bounded space, with every peak."""

from holdwater.timeline.buckets import SERIES, Buckets
from holdwater.timeline.timeline import Timeline

__all__ = ["SERIES", "Buckets", "Timeline"]
