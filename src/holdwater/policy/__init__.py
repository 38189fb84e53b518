"""Decide what is done about memory; each decision has its reason."""
