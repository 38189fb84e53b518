"""A training step that survives a lack of memory: put back, release, take it again, then with smaller batches."""
