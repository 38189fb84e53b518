"""Report what a run's memory did, in the terminal and as one HTML file, from the store alone."""
