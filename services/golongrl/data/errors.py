"""The errors of this room: input that cannot be used, said in one line."""

from golongrl.errors import InputError


class DataError(InputError):
    """The message names the file, row and key (or the corpus, model or setting) and what to do about it."""


class NoRowsError(DataError):
    """All rows of a split were left out."""
