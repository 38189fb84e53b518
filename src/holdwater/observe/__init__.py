"""Observe a training process from a second process, which survives its crash: read, judge, ask, explain."""
