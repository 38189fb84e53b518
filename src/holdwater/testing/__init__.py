"""Stand-ins for rehearsals and tests: a clock turned by hand, a machine short of memory, made-up samples."""

from holdwater.testing.stand_ins import ManualClock, StandInMemory, make_sample

__all__ = ["ManualClock", "StandInMemory", "make_sample"]
