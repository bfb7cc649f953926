"""`run.json`: what a run on this machine says about itself to whoever looks at its folder; also its marker.

A folder with this file is a run's own. No secret stands in it: `password_file` names the file that has the password.
"""

import json
import shlex
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal, Self

from golongrl import files
from golongrl.errors import InputError
from golongrl.reading import refuse_special, small_text

FILE = "run.json"
# Runs of versions before this file existed are recognised by their recipe.
MARKERS = (FILE, "recipe.yaml")

# Where runs are, unless a command is told another folder.
RUNS = Path("runs")

RunState = Literal["preparing", "running", "done", "stopped", "failed"]


# Runs that one line names.
_NAMED = 5


def others(out: Path) -> str:
    """For a line that misses a run: the runs that are in the folder."""
    names = sorted({path.parent.name for mark in MARKERS for path in out.glob(f"*/{mark}")})
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{out} has {', '.join(names[:_NAMED]) + more if names else 'no run'}"


@dataclass(frozen=True)
class RunInfo:
    """One run, as its supervisor last wrote it down.

    Attributes:
        pid, pid_started: the supervisor; a process id alone may belong to another process by now.
        started: when it was started last, ISO 8601 in UTC.
        temporary: the folder of its processes' temporary files.
        detail: why it ended, where it did.
        ports: of 127.0.0.1, by service; empty before they are started.
    """

    run: str
    version: str
    machine: str
    started: str
    pid: int
    pid_started: float
    state: RunState
    redis_url: str = ""
    password_file: str | None = None
    temporary: str | None = None
    detail: str = ""
    ports: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The run's record; None where there is none.

        Raises:
            InputError: the file is not one that this program wrote.
        """
        path = folder / FILE
        try:
            refuse_special(path)
            record = json.loads(small_text(path))
            return cls(**{each.name: record[each.name] for each in fields(cls) if each.name in record})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, RecursionError) as error:
            # A TypeError names this program's insides.
            why = "it lacks keys" if isinstance(error, TypeError) else getattr(error, "strerror", None) or error
            raise InputError(f"{path}: not a run's record ({why})") from error

    def write(self, folder: Path) -> None:
        """Write it into the run's folder.

        Raises:
            OSError: the storage refused.
        """
        files.write_text(folder / FILE, json.dumps(asdict(self), indent=2) + "\n")


def resume_command(run: str, out: Path, recipe: str | None = None) -> str:
    """The command that continues a run, as a shell reads it.

    Args:
        recipe: what the run was started with, unless that is the default.
    """
    named, place = [] if recipe is None else [recipe], [] if out == RUNS else ["--out", str(out)]
    return shlex.join(["golongrl", "train", *named, "--resume", "--name", run, *place])
