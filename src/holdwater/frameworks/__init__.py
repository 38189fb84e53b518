"""Hooks into PyTorch, MLX and Transformers: count steps and batches, replace loader workers, recover steps."""
