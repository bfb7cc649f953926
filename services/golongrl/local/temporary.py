"""The private folder for a run's temporary files, which are those of all its processes."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from golongrl import files
from golongrl.learner.ranks.ray_folder import LONGEST_ROOT
from golongrl.local.plan import RunFolder
from golongrl.reading import small_text

_PREFIX = "golongrl-"
# Of the folder that the run's own is made in: the learner's Ray session has to fit below that.
_LONGEST_PARENT = LONGEST_ROOT - len(f"/{_PREFIX}12345678")
# The file in it that says which run's it is.
_OWNER = "run"


def make(folder: RunFolder) -> Path:
    """A new one, whose name is short enough for the names of Ray's sockets below it."""
    chosen = tempfile.gettempdir()
    base = chosen if len(os.fsencode(chosen)) <= _LONGEST_PARENT else "/tmp"
    made = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    files.write_text(made / _OWNER, _identity(folder))
    return made


def remove(folder: RunFolder, temporary: Path | None, *, own: bool = False) -> None:
    """Delete the temporary files of this run; a `run.json` that was copied or edited names another's.

    Args:
        own: this process made them. The run's folder may be gone.
    """
    if temporary is not None and temporary.name.startswith(_PREFIX):
        with contextlib.suppress(OSError, ValueError):
            if own or small_text(temporary / _OWNER) == _identity(folder):
                shutil.rmtree(temporary, ignore_errors=True)


def _identity(folder: RunFolder) -> str:
    """The folder itself, under whatever name it is reached."""
    found = folder.path.stat()
    return f"{found.st_dev} {found.st_ino}\n"
