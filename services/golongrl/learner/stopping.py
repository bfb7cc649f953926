"""How the learner ends before the run is complete: by a signal, after the step in hand or at once where none has begun,
or by a failure."""

import asyncio
import signal

import structlog

from golongrl.errors import GolongrlError

log = structlog.get_logger()


class TrainingInterruptedError(GolongrlError):
    """A signal came before the run was complete; the next start resumes it."""

    # What a shell reports for a program that SIGTERM ended.
    exit_code = 128 + signal.SIGTERM


class TrainingFailedError(GolongrlError):
    """The run cannot continue, and a restart would not help."""


class StopSignal:
    """SIGTERM and SIGINT, from the task that creates it. Until `finish_steps` they cancel that task."""

    def __init__(self) -> None:
        self.requested = asyncio.Event()
        self._cancels = asyncio.current_task()

    def listen(self) -> None:
        """Handle both signals; call it again after a library installed its own handlers."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop)

    def finish_steps(self) -> None:
        """From now on a signal only sets `requested`; the loop ends after its step."""
        self._cancels = None

    def _stop(self) -> None:
        # Kubernetes and Ray may both send one. A second cancellation would interrupt the end that the first one began.
        if self.requested.is_set():
            return
        log.info("a signal asks to stop")
        self.requested.set()
        if self._cancels is not None:
            self._cancels.cancel()
