"""What the loops keep in files of their own."""
