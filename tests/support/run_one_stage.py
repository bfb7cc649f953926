"""Run one stage of a construction in this process, and from a test: kill such a process while its calls are held.

python run_one_stage.py PIPELINE OUT STAGE [WRITTEN]

With WRITTEN the process is killed without warning as that many shards of the stage are written.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from golongrl.data.construct.load import load
from golongrl.data.construct.metrics import DataMetrics
from golongrl.data.construct.registry import stages
from golongrl.data.construct.run import run_stage
from golongrl.data.construct.table import StageTable
from golongrl.data.construct.tables import Tables
from golongrl.data.construct.workers import Here
from golongrl.llm import ReplyStore
from support.construct_and_die import write_and_die


def run_and_die(pipeline: Path, out: Path, stage: str, written: int = 0) -> None:
    """Run the stage until so many of its shards are written, and kill -9 it then."""
    arguments = [sys.executable, __file__, str(pipeline), str(out), stage, str(written)]
    died = subprocess.run(arguments, capture_output=True, text=True, check=False, env=_environment())
    assert died.returncode == -signal.SIGKILL, died.stderr


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}


def kill_while_calls_are_held(
    pipeline: Path, out: Path, stage: str, reached: threading.Event, answered: list[str]
) -> None:
    """Run the stage until the endpoint holds its calls (`reached`) and what it answered is in the store; then kill -9.

    Args:
        answered: one entry for each call that was answered; complete once `reached` is set.
    """
    arguments = [sys.executable, __file__, str(pipeline), str(out), stage]
    child = os.posix_spawn(sys.executable, arguments, _environment())
    try:
        assert reached.wait(200)
        with ReplyStore(out / "replies.sqlite") as store:
            while store.count()[0] < len(answered):
                time.sleep(0.05)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


if __name__ == "__main__":
    if len(sys.argv) > 4:
        StageTable.write_shard = write_and_die  # type: ignore[method-assign]
    made = load(sys.argv[1])
    tables = Tables(Path(sys.argv[2]), made)
    (chosen,) = [one for one in stages(made, tables, Here(), DataMetrics()) if one.name == sys.argv[3]]
    run_stage(chosen, tables.table(chosen.name), print)
