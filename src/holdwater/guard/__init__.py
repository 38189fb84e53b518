"""Guard a training loop inside its memory budget: sample, judge, act, and record."""
