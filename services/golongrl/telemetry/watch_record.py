"""`watch.json`: what the supervisor of a run on this machine sees now, for `golongrl status`.

It is a file, so that it can be read while Redis is what does not answer. Invariant: it is rewritten every second while
the supervisor lives, so its age says whether that hangs, too.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Self

from golongrl import files
from golongrl.reading import small_text

FILE: Final = "watch.json"
# A supervisor writes every second, and may be held up by a slow disk.
STALE_S: Final = 10.0


@dataclass(frozen=True)
class WatchRecord:
    """One look.

    Attributes:
        at: when, in seconds since 1970.
        states: what the supervisor knows of each service.
        stalls: chains of who waits for whom, each ending at the process to look at.
    """

    at: float
    states: Mapping[str, str] = field(default_factory=dict)
    stalls: Sequence[str] = ()

    @property
    def age_s(self) -> float:
        """How old it is."""
        return time.time() - self.at

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The last look; None where there is none that can be read."""
        try:
            found = json.loads(small_text(folder / FILE))
            states = {str(name): str(state) for name, state in found["states"].items()}
            return cls(float(found["at"]), states, tuple(map(str, found["stalls"])))
        except (OSError, ValueError, OverflowError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def write(self, folder: Path) -> None:
        """Write it into the run's folder.

        Raises:
            OSError: the storage refused.
        """
        files.write_text(folder / FILE, json.dumps(asdict(self)) + "\n")
