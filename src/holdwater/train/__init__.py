"""Training, built in: a client of the guard like any other, and flat by construction."""
