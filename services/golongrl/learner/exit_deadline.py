"""A deadline for the end of the learner: whatever hangs then (Ray, a rank, a thread), the process ends.

What has to be kept is durable before: the deadline begins when training is over, complete or not. The exit code is the
one that the process would have ended with.
"""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from golongrl.errors import GolongrlError, without_secrets

# Closing takes seconds, on a busy machine half a minute. The supervisor's probe would kill what hangs after 120 s, and
# call it a failure.
LIMIT_S = 100.0


class ExitDeadline:
    """At most one of a process."""

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        self._limit_s = limit_s
        self._begun = False

    @contextmanager
    def after(self) -> Iterator[None]:
        """The deadline begins if the block ends with an error."""
        try:
            yield
        except GolongrlError as error:
            self.begin(error.exit_code, str(error))
            raise
        except BaseException as error:
            self.begin(1, f"{type(error).__name__}: {error}")
            raise

    def begin(self, code: int, error: str = "") -> None:
        """From now on; only the first call counts."""
        if not self._begun:
            self._begun = True
            threading.Thread(target=self._end, args=(code, error), name="exit-deadline", daemon=True).start()

    def _end(self, code: int, error: str) -> None:
        time.sleep(self._limit_s)
        print(f"the learner did not end within {self._limit_s:g} s and is killed; it hangs in:", file=sys.stderr)
        faulthandler.dump_traceback(file=sys.stderr)
        if error:
            print(f"error: {without_secrets(error)}", file=sys.stderr)
        sys.stderr.flush()
        os._exit(code)
