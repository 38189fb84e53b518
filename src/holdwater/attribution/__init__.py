"""Attribute growing memory: the lines that allocate it, and the objects that hold it, in a live process."""
