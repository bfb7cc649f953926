"""How long the phases of a step take: seconds by metric name."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def timed(clock: dict[str, float], name: str) -> Iterator[None]:
    """Add the seconds of the block to `clock[name]`; a block that raises is not counted."""
    started = time.perf_counter()
    yield
    clock[name] = clock.get(name, 0.0) + time.perf_counter() - started
