"""The built-in training loop and its runs, which use the guard like any other program."""
