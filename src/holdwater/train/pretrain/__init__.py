"""A small GPT trained from scratch: its text, its model, its step and its state."""
