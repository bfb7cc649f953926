"""The errors of this room: input that cannot be used, said in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from golongrl.errors import InputError

# Faults named in one message.
_MOST_TOLD: Final = 12
_NEXT: Final = "\n  "


class DataError(InputError):
    """The message names the file, row and key (or the corpus, model or setting) and what to do about it."""


class NoRowsError(DataError):
    """All rows of a split were left out."""


class Faults:
    """What is wrong by checks that do not depend on each other: one line each, all told at once."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, line: str) -> None:
        """Each line once."""
        if line not in self.lines:
            self.lines.append(line)

    @contextmanager
    def told(self) -> Iterator[None]:
        """Keep the faults that the block raises, and continue behind it."""
        try:
            yield
        except DataError as error:
            for line in str(error).split(_NEXT):
                self.add(line)

    def refuse(self) -> None:
        """
        Raises:
            DataError: there is a fault; beyond a dozen they are counted.
        """
        if self.lines:
            more = len(self.lines) - _MOST_TOLD
            raise DataError(_NEXT.join([*self.lines[:_MOST_TOLD], *([f"... and {more} more"] if more > 0 else [])]))
