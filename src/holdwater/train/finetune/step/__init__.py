"""The training step in three ways: fused, captured autograd, or eager."""
