"""The parent of a learner's own Ray node: `python -m golongrl.learner.ranks.ray_node LEARNER-PID COMMAND...` (Linux).

Ray's agents outlive their raylet by more than a minute, and raylet and ranks outlive a killed `ray start`. This process
adopts all of them as orphans, so that it finds them.

Invariants: when the learner ends, however it ends, or the command ends, every process below this one is killed at once;
SIGTERM lets the command end by itself first. The exit code is the command's.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from types import FrameType

import psutil

# From <linux/prctl.h>.
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LEARNER_DIED = signal.SIGUSR1
# After SIGTERM a node drains first; there is nothing to drain.
_STOP_S = 10
# A process may start another before it sees its own end; what was killed starts none.
_KILLS = 3
_GONE_S = 5.0


def command(words: list[str]) -> list[str]:
    """The command line that runs `words` below such a parent; `words` themselves where there is no Linux."""
    if sys.platform != "linux":
        return words
    return [sys.executable, "-m", __name__, str(os.getpid()), *words]


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _die_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _kill_descendants() -> None:
    for _ in range(_KILLS):
        left = psutil.Process().children(recursive=True)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=_GONE_S)


def main(learner: int, words: list[str]) -> int:
    """Run the command to its end, or the learner's."""

    def kill(number: int, _: FrameType | None) -> None:
        _kill_descendants()
        os._exit(128 + number)

    for number in (_LEARNER_DIED, signal.SIGALRM):
        signal.signal(number, kill)
    # The kernel sends it to a group that has lost its parent while one of its processes is stopped.
    signal.signal(signal.SIGHUP, lambda *_: None)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _prctl(_PR_SET_PDEATHSIG, _LEARNER_DIED)
    if os.getppid() != learner:  # it died before the line above
        return 1
    process = subprocess.Popen(words, preexec_fn=_die_with_parent)

    def stop(_: int, __: FrameType | None) -> None:
        process.terminate()
        signal.alarm(_STOP_S)

    signal.signal(signal.SIGTERM, stop)
    code = process.wait()
    _kill_descendants()
    return code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
