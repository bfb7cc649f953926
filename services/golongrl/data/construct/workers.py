"""Running a stage's function over shards: in processes of this machine, or through Ray Data on a cluster.

Twice as many shards as processes are held at a time, which bounds the memory. Each row is a call of its own: one that
outlasts its deadline, or whose process dies (out of memory, a crash in a parser), is refused, and no other row of its
shard is made again. A function that raises is a defect and ends the stage.
"""

import asyncio
import os
import pickle
import textwrap
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from golongrl.data.construct.errors import PipelineError
from golongrl.data.construct.stage import Done, Made, Row, StageShard, Work, refused
from golongrl.errors import GolongrlError
from golongrl.reward.items import Lost, encode
from golongrl.reward.pool import WorkerPool

# Starting Python and importing pyarrow takes seconds on a busy machine.
_START_S = 300.0
# A process is replaced after so many rows, so that what a parser leaks does not add up.
_RECYCLE_AFTER = 5000


@dataclass(frozen=True)
class Here:
    """Everything in this process, one shard after the other: for small inputs and for looking at a defect."""

    def run(self, work: Work, shards: Sequence[StageShard], done: Done, row_deadline_s: float) -> None:  # noqa: ARG002
        for shard in shards:
            done(shard, work([one.row for one in shard.inputs]))


@dataclass(frozen=True)
class Processes:
    """So many processes of this machine; None: as many as it has cores."""

    count: int | None = None

    def run(self, work: Work, shards: Sequence[StageShard], done: Done, row_deadline_s: float) -> None:
        asyncio.run(self._run(work, shards, done, row_deadline_s))

    async def _run(self, work: Work, shards: Sequence[StageShard], done: Done, row_deadline_s: float) -> None:
        count = min(self.count or os.cpu_count() or 1, sum(len(shard.inputs) for shard in shards))
        # Twice as many as processes: one runs, one waits. More would only hold their rows in memory.
        at_once = 2 * count
        pool = WorkerPool(
            _call,
            workers=count,
            max_queued=at_once * max(len(shard.inputs) for shard in shards),
            recycle_after=_RECYCLE_AFTER,
            preload=("pyarrow.parquet",),
            start_timeout_s=_START_S,
        )
        await pool.start()
        try:
            await pool.wait_warm()
            remaining = iter(shards)
            async with asyncio.TaskGroup() as group:
                for _ in range(at_once):
                    group.create_task(_drain(pool, work, remaining, done, row_deadline_s))
        except* (GolongrlError, OSError) as errors:
            raise errors.exceptions[0] from None
        finally:
            await pool.stop()


async def _drain(pool: WorkerPool, work: Work, shards: Iterator[StageShard], done: Done, row_deadline_s: float) -> None:
    for shard in shards:
        payloads = [encode(work, [one.row]) for one in shard.inputs]
        answers = await asyncio.gather(*pool.submit(payloads, row_deadline_s))
        pairs = zip(shard.inputs, answers, strict=True)
        done(shard, [_made(one.row, answer.value, row_deadline_s) for one, answer in pairs])


def _made(row: Row, answer: Sequence[Made] | PipelineError | Lost, deadline_s: float) -> Made:
    """The rows of one input, from what its process answered; a refused one has the input's columns, which name it."""
    if isinstance(answer, Lost):
        if answer.kind == "no_worker":
            raise PipelineError(f"no worker process is left: {answer.reason}")
        if answer.kind == "deadline":
            return [refused("over the deadline", f"not made within {deadline_s:g} s", **row)]
        return [refused("killed its process", answer.reason, **row)]
    if isinstance(answer, PipelineError):
        raise answer
    return answer[0]


def _call(work: Work, rows: Sequence[Row]) -> Sequence[Made] | PipelineError:
    """What the function made, or what ends the stage: an error for a person, or the traceback of a defect."""
    try:
        return work(rows)
    except GolongrlError as error:
        return PipelineError(str(error))
    except Exception:  # noqa: BLE001 - whatever it is, it has to reach the process that ends the stage
        return PipelineError(f"a defect ended the stage:\n{textwrap.indent(traceback.format_exc(), '  ')}")


@dataclass(frozen=True)
class RayCluster:
    """The same functions as tasks of Ray Data; the output folder has to be one that every node mounts."""

    def run(self, work: Work, shards: Sequence[StageShard], done: Done, row_deadline_s: float) -> None:  # noqa: ARG002
        import ray.data

        payloads = [
            {"index": number, "payload": pickle.dumps((work, [one.row for one in shard.inputs]))}
            for number, shard in enumerate(shards)
        ]
        made = ray.data.from_items(payloads).map(_ray_call)
        seen = 0
        for row in made.iter_rows():
            answer = pickle.loads(row["made"])
            if isinstance(answer, PipelineError):
                raise answer
            done(shards[row["index"]], answer)
            seen += 1
        if seen != len(shards):
            raise PipelineError(f"Ray gave {seen} of {len(shards)} shards; see its log")


def _ray_call(row: dict[str, object]) -> dict[str, object]:
    payload = row["payload"]
    assert isinstance(payload, bytes)
    work, rows = pickle.loads(payload)
    return {"index": row["index"], "made": pickle.dumps(_call(work, rows))}
