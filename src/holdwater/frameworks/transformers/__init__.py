"""Callbacks, a mixin and collators for the trainers of Transformers and TRL."""
