"""Show what a run's memory did: in the terminal, and as one HTML file. Reads the store only."""
