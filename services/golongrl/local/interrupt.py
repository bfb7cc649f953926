"""Signals that end a command where it is, in order, and what it then tells the person who sent one."""

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass

from golongrl.local.supervisor import SIGNALS, RunInterruptedError


@dataclass
class Advice:
    """What a person who stopped the run can do next."""

    text: str = "the run had not begun"


@contextlib.contextmanager
def interruptible() -> Iterator[Advice]:
    """A signal ends the block where it is, in order: what has to be tidied up is.

    Raises:
        RunInterruptedError: one came.
    """
    came: list[int] = []

    def on_signal(number: int, _frame: object) -> None:
        if not came:  # a second one must not end the tidying up
            came.append(number)
            raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in SIGNALS}
    heard = [number for number in SIGNALS if number == signal.SIGINT or before[number] is not signal.SIG_IGN]
    for number in heard:
        signal.signal(number, on_signal)
    advice = Advice()
    try:
        yield advice
    except KeyboardInterrupt:
        raise RunInterruptedError(came[0] if came else signal.SIGINT, advice.text) from None
    finally:
        for number in heard:
            signal.signal(number, before[number] or signal.SIG_DFL)
