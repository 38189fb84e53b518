"""What is known of PyTorch, MLX and their loaders: how steps, batches and workers are noticed."""
