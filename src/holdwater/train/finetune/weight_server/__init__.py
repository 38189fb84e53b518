"""Frozen weights that outlive a training process: a server that holds them, and its client."""
