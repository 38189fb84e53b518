"""Memory that a run on pictures will need, before it runs: of the device and of the host."""
