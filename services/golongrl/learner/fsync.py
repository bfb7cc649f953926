"""Files that have reached the storage, and the one line that says which could not."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from golongrl.errors import GolongrlError


class NotWrittenError(GolongrlError):
    """A file of a checkpoint or of weights could not be written; the message names it."""


@contextmanager
def writing(what: str, path: Path) -> Iterator[None]:
    """Around the writing of `path`, which is of a `what`.

    Raises:
        NotWrittenError: the storage refused (full, gone, not ours).
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:  # torch's own writer raises RuntimeError
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise NotWrittenError(f"{what} {path} could not be written: {reason}") from error


def sync(path: Path) -> None:
    """Make a file or folder durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace(path: Path, text: str) -> None:
    """Make `text` the durable content of `path`, in one step: whoever reads it sees the old or the new."""
    staging = path.with_suffix(".tmp")
    staging.write_text(text, "utf-8")
    sync(staging)
    staging.rename(path)
    sync(path.parent)
