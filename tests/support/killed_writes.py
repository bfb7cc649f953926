"""A process that is killed just before its k-th call that changes the file system, for each k."""

import builtins
import io
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

_CALLS = ((os, ("replace", "rename", "fsync", "mkdir", "unlink", "rmdir", "truncate", "open")), (io, ("open",)))
_DONE = 0


def killed_at_each_write(prepare: Callable[[], None], work: Callable[[], object]) -> Iterator[int]:
    """After each kill, how many calls the process had made; ends when `work` ran to its end.

    Args:
        prepare: what was there before; called before each try.
    """
    made = 0
    while True:
        prepare()
        child = os.fork()
        if child == 0:
            try:
                _kill_before(made + 1)
                work()
                os._exit(_DONE)
            finally:
                os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == _DONE:
            return
        assert code == -signal.SIGKILL, f"the work itself failed after {made} calls"
        yield made
        made += 1


def _kill_before(number: int) -> None:
    seen = 0

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def replacement(*arguments: Any, **named: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **named)

        return replacement

    for module, names in _CALLS:
        for name in names:
            setattr(module, name, counted(getattr(module, name)))
    builtins.open = io.open
