"""What should be done about memory, and may we? Decisions, each with its reason."""
