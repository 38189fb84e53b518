"""The folder of a run: its history in SQLite, its checkpoints, its resolved configuration."""
