"""Models of Transformers: load them, add adapters to their layers, and write them merged."""
