"""What a command may create, overwrite and delete.

The rules, and who keeps them:
- a folder is taken only if it is new, empty or the program's own, which a marker file in it shows (`look`, `Place`);
- what a failed command made is removed, and nothing else (`Made`);
- a folder that is deleted or replaced later holds a marker too (`remove_own`, `make_way`);
- what a command wrote into a folder of input is no input (`outside_outputs`);
- a file that a user or another process reads is written to a temporary name and renamed, so that a reader, or a crash,
  finds the old content or the new (`replacing`, `write_text`);
- what a user names as output and is not a plain file (a pipe, a terminal) is written to directly;
- the lock of a folder, or of a file that a user names as output (`sole_writer`), comes before the first write, and is
  never a link or a file of somebody else (`lock`).
"""

from golongrl.files.locks import LockHeldError, NoLockError, lock, locked_folder, sole_writer
from golongrl.files.places import (
    ForeignFilesError,
    Made,
    Place,
    PlaceState,
    judge,
    look,
    make_way,
    outside_outputs,
    refuse_elsewhere,
    refuse_foreign,
    remove_own,
    scratch_name,
    sweep,
)
from golongrl.files.writing import follow_umask, refuse_input, replacing, sweep_staged, sync, write_private, write_text

__all__ = [
    "ForeignFilesError",
    "LockHeldError",
    "Made",
    "NoLockError",
    "Place",
    "PlaceState",
    "follow_umask",
    "judge",
    "lock",
    "locked_folder",
    "look",
    "make_way",
    "outside_outputs",
    "refuse_elsewhere",
    "refuse_foreign",
    "refuse_input",
    "remove_own",
    "replacing",
    "scratch_name",
    "sole_writer",
    "sweep",
    "sweep_staged",
    "sync",
    "write_private",
    "write_text",
]
