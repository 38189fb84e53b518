"""Stand-ins for rehearsals and tests: a clock advanced by hand, a machine short of memory, sample objects."""

from holdwater.testing.stand_in_metal import StandInMetal
from holdwater.testing.stand_ins import ManualClock, StandInMemory, make_sample

__all__ = ["ManualClock", "StandInMemory", "StandInMetal", "make_sample"]
