"""Imported once by the fork server: importing it makes the metrics warm, so that every worker is forked warm.

A new worker then costs a fork (milliseconds, memory shared) instead of a second of imports and dictionary loading.
"""

import signal

import golongrl.tasks  # noqa: F401  the import itself is the purpose

# A SIGTERM to the whole process group must not end the fork server: its death would end workers that still compute.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
