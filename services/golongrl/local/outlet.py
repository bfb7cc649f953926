"""Standard output of a run, whose reader may be slow, stop reading (Ctrl-S, a frozen connection, a pager) or leave.

Invariants:
- a write never waits for the reader: nobody would look after the services meanwhile;
- what does not fit into `MOST_CHARS` unread characters is dropped, and a line says how much;
- once the reader has left, everything is dropped, and the run goes on.
"""

import io
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO, cast

# Some thousand lines, or the frames of a live table for about ten minutes.
MOST_CHARS = 1 << 20
# At the end, a reader that is there gets the rest; one that does not read holds up nobody for longer.
DRAIN_S = 30.0


class Outlet(io.TextIOBase):
    """A text stream before `stream`, written to by a thread of its own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._changed = threading.Condition()
        self._unread: deque[str] = deque()
        self._held = 0
        self._dropped = 0
        self._ended = False
        self._thread = threading.Thread(target=self._hand_on, name="outlet", daemon=True)
        self._thread.start()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """That of the stream."""
        return self._stream.encoding

    def isatty(self) -> bool:
        """Whether the stream is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """The stream's descriptor."""
        return self._stream.fileno()

    def write(self, text: str) -> int:
        """Take the text, or drop it; returns at once."""
        with self._changed:
            if self._ended:
                return len(text)
            if self._held + len(text) > MOST_CHARS:
                self._dropped += len(text)
            else:
                self._held += len(text)
                self._unread.append(text)
                self._changed.notify()
        return len(text)

    def drain(self, most_s: float = DRAIN_S) -> None:
        """End: wait so long until everything has been read."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join(most_s)

    def _hand_on(self) -> None:
        write = _writer(self._stream)
        try:
            while (text := self._next()) is not None:
                write(text)
        except OSError:
            with self._changed:
                self._ended = True
                self._unread.clear()

    def _next(self) -> str | None:
        """What to write next; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._unread or self._dropped or self._ended)
            if self._unread:
                text = self._unread.popleft()
                self._held -= len(text)
                return text
            dropped, self._dropped = self._dropped, 0
            return f"\n({dropped} characters of output were dropped: nobody read them)\n" if dropped else None


def _writer(stream: TextIO) -> Callable[[str], object]:
    """Writes all of a text to the stream.

    Below Python's own buffer where there is a descriptor: the interpreter's end would wait for a buffer that is locked.
    """
    try:
        descriptor = stream.fileno()
    except OSError:
        return stream.write
    stream.flush()

    def write(text: str) -> None:
        left = memoryview(text.encode(stream.encoding, stream.errors or "strict"))
        while left:
            left = left[os.write(descriptor, left) :]

    return write


@contextmanager
def outlet(stream: TextIO) -> Iterator[TextIO]:
    """An outlet before the stream; at the end, what it holds is written as far as somebody reads it."""
    out = Outlet(stream)
    try:
        yield cast("TextIO", out)
    finally:
        out.drain()
