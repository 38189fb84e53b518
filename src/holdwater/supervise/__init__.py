"""Keep a run going in one process after another: start each, follow it, and record what replacing it costs."""
