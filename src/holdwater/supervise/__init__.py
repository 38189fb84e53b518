"""Keep a run going in one process after another: decide when to replace it, start the next, and count the cost."""
