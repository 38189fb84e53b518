"""Fine-tuning by MLX: models, adapters and generation of `mlx_lm`, with holdwater's own loop and checkpoints."""
