"""A line every so often on how far a long stage is, printed beside the work."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# A reader who sees nothing for longer takes the command for stuck.
EVERY_S = 15.0


@contextmanager
def told(say: Callable[[str], None], line: Callable[[], str], every_s: float = EVERY_S) -> Iterator[None]:
    """Say `line()` every `every_s` seconds inside the context. From a thread: stages compute in this one, or have event
    loops of their own."""
    over = threading.Event()

    def tell() -> None:
        while not over.wait(every_s):
            say(line())

    thread = threading.Thread(target=tell, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
