"""Write and read the folder of a run: its history in SQLite, its checkpoints, its lock."""
