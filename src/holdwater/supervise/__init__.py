"""Watch a training process from a process beside it: it may crash, be killed or leak; this one goes on."""
