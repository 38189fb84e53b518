"""The training step in three ways: fused, captured from the model's own autograd, or eager."""
