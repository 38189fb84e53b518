"""Resume exactly where a process has ended: registered state, steps, batches and random states."""
