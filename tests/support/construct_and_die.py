"""Run a construction in this process, and kill it without warning as a shard of a stage is about to be written.

python construct_and_die.py PIPELINE OUT STAGE [WRITTEN]

So many shards of the stage are written before, 0 by default.
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from golongrl.data.construct.load import load
from golongrl.data.construct.run import construct
from golongrl.data.construct.stage import Row
from golongrl.data.construct.table import StageTable
from golongrl.data.construct.workers import Here

whole = StageTable.write_shard


def write_and_die(table: StageTable, file: str, rows: Sequence[Row]) -> None:
    if table.folder.name == sys.argv[3] and len(table.shards()) >= int((*sys.argv, "0")[4]):
        (table.folder / f".5eed00{file}.tmp.parquet").write_bytes(b"half of a shard")
        os.kill(os.getpid(), signal.SIGKILL)
    whole(table, file, rows)


if __name__ == "__main__":
    StageTable.write_shard = write_and_die  # type: ignore[method-assign]
    construct(load(sys.argv[1]), Path(sys.argv[2]), Here(), print)
