"""Child processes: start or fork one, pass it its restart context, forward signals, read its channel."""
