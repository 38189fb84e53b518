"""A training step that recovers from out-of-memory: restore, release, repeat, then with a smaller micro-batch."""
