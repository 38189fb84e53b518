"""Child processes: start or fork one, tell it why it was started, pass signals on, read what it says of itself."""
