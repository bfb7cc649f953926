"""Run an ASGI app as a process that Kubernetes can stop: finish what was accepted, then exit 0."""

import signal
import sys
from types import FrameType

import uvicorn
from fastapi import FastAPI

# Connections waiting to be accepted while the loop is busy: a burst of every rollout worker at once.
_BACKLOG = 4096


def run(app: FastAPI, *, host: str, port: int, shutdown_s: int) -> None:
    """Serve until SIGTERM or SIGINT; then accept no more, finish running requests within `shutdown_s`, exit 0.

    Does not return; exits 1 where it cannot listen (the reason is logged).
    """
    # The server raises the signal again once it has shut down; this handler turns that into a clean end.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _exit_cleanly)
    uvicorn.run(
        app,
        host=host,
        port=port,
        backlog=_BACKLOG,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=shutdown_s,
    )
    sys.exit(0)


def _exit_cleanly(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)
