"""Who allocates, who holds: what the objects of a live process say about memory that grows."""
