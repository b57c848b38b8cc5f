"""Exit statuses of commands, on which schedulers, launchers and scripts act. Imports nothing."""

FAILED = 1
"""The work failed, or a check did not hold."""
BAD_INPUT = 2
"""Bad usage or input: no other try changes that."""
REFUSED = 3
"""Refused: a run was begun with other settings, files changed, versions differ; no other try changes that."""
DRAINED = 75
"""A scheduler's signal stopped a command on a run: the same command goes on (EX_TEMPFAIL)."""
INTERRUPTED = 130
"""Stopped by Ctrl-C or SIGTERM, as a shell has it."""
