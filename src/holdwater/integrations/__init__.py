"""Former import paths, kept for compatibility."""
