"""The exit codes of the command line and of what it starts."""

DONE = 0
"""The run is complete."""
SPOILT = 1
"""The weights of a process are incomplete: its supervisor starts another one. Also any uncaught Python error."""
MISTAKE = 2
"""A mistake in the call or the configuration, or a loss that is not finite: trying again does not help."""
FOUND = 3
"""What `--fail-on` names was found; of `holdwater plan`: nothing fits into the budget."""
STOPPED = 75
"""The run was stopped on purpose, and can be resumed (`EX_TEMPFAIL` of sysexits.h)."""
FINAL = frozenset((DONE, MISTAKE, FOUND, STOPPED))
"""After these the supervisor starts no other process."""

TERMINATION_LOG = "HOLDWATER_TERMINATION_LOG"
"""A variable that names the file that says why a run ended; it is no key of a configuration."""
