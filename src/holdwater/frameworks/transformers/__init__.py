"""Callbacks and a mixin for the trainers of Transformers and TRL."""
