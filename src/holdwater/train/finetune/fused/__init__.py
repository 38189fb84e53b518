"""A fused training step of a decoder-only transformer with frozen weights: its own kernels, no autograd."""
