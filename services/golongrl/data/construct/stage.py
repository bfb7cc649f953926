"""The protocol of a stage, and the plan of its work. Pure, but for what a stage itself does.

A stage names its inputs (`Input`: an id, and the light columns that its work needs) and makes one or more rows of each.
The frame cuts the inputs into shards, finds the rows that an earlier run has made, has the stage make the others, and
writes a shard once all of its rows are there. Because a row's key covers the stage, its version, the settings that
matter and the input, a rerun makes only what is missing, and what it writes has the same bytes.

To write a stage: derive from `CpuStage` and give a picklable function from rows to rows, which runs in processes or
through Ray; or derive from `PipelineStage` and write `run`, which may use an event loop over all shards at once.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import pyarrow as pa

from golongrl.data.construct.keys import digest, row_key, shard_name

StageName = Literal[
    "sources", "select", "generate", "convert", "verify", "passrate", "format", "decontaminate", "diagnose"
]
Row = Mapping[str, Any]
# The rows made of one input, in order: never none, because a refused input is a row with a reason.
Made = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Input:
    """What a stage makes rows of: `id` covers all of its content that the rows depend on."""

    id: str
    row: Row


@dataclass(frozen=True, slots=True)
class StageShard:
    """Inputs whose rows are written together."""

    index: int
    file: str
    inputs: tuple[Input, ...]
    keys: tuple[str, ...]


Done = Callable[[StageShard, Sequence[Made]], None]
"""Hand over a shard's rows, one entry for each of its inputs, in order. It is written at once."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All shards of a stage, and a digest of the whole."""

    shards: tuple[StageShard, ...]
    rows_in: int
    digest: str


def plan(name: str, version: int, settings: Mapping[str, object], inputs: Iterable[Input], shard_rows: int) -> Plan:
    """Cut the inputs, in their order, into shards of `shard_rows`."""
    prefix = row_key(name, version, settings)
    listed = list(inputs)
    repeats: Counter[str] = Counter()
    keys: list[str] = []
    for one in listed:
        # Two inputs of the same content are two rows, each with a key of its own.
        keys.append(digest(prefix, one.id, repeats[one.id]))
        repeats[one.id] += 1
    shards: list[StageShard] = []
    for start in range(0, len(listed), shard_rows):
        end = start + shard_rows
        file = shard_name(len(shards), keys[start:end])
        shards.append(StageShard(len(shards), file, tuple(listed[start:end]), tuple(keys[start:end])))
    return Plan(tuple(shards), len(listed), digest(prefix, *(shard.file for shard in shards)))


def refused(reason: str, detail: str = "", /, **columns: Any) -> dict[str, Any]:
    """A row that is left out, with what is known of it."""
    return {**columns, "reason": reason, "detail": detail or None}


class Work(Protocol):
    """A picklable function that makes the rows of some inputs; it runs in a process of its own."""

    def __call__(self, rows: Sequence[Row]) -> Sequence[Made]: ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """A row that the look at all rows together refuses, by its number in the table."""

    number: int
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a stage would cost: lines for a person, printed by --dry-run before anything is spent."""

    lines: Sequence[str] = field(default_factory=tuple)


class PipelineStage(ABC):
    """One stage of a pipeline. `version` is raised whenever the same inputs would give other rows."""

    name: ClassVar[StageName]
    version: ClassVar[int]
    schema: ClassVar[pa.Schema]
    # Rows that are lost at most when the process is killed; few where a row is expensive or large.
    shard_rows: ClassVar[int] = 64

    @abstractmethod
    def settings(self) -> Mapping[str, object]:
        """JSON of every setting that the rows depend on, and of none that they do not."""

    @abstractmethod
    def inputs(self) -> Iterator[Input]:
        """What rows are made of, in an order that does not change."""

    @abstractmethod
    def run(self, shards: Sequence[StageShard], done: Done) -> None:
        """Make the rows of these shards and hand each to `done`, in any order."""

    def identify(self, row: Row) -> str:
        """The id of a kept row: a hash of all of its columns."""
        return digest({key: value for key, value in row.items() if key not in ("id", "key", "reason", "detail")})

    def settle(self, rows: Callable[[Sequence[str]], Iterator[tuple[int, Row]]]) -> Iterable[Verdict]:  # noqa: ARG002
        """Refuse rows by a look at all of them; `rows(columns)` gives the kept ones with their numbers."""
        return ()

    def finish(self) -> Sequence[str]:
        """Called when the table is whole: write what is made of it; gives lines for a person."""
        return ()

    def expected(self, inputs: int) -> int:
        """Rows that so many inputs give at most."""
        return inputs

    def forecast(self, inputs: int, todo: Sequence[Input] | None) -> Forecast:  # noqa: ARG002
        """What making these rows would cost.

        Args:
            inputs: how many inputs there are; where the stage before has not run, at most so many.
            todo: the inputs whose rows are missing; None where they are not known yet.
        """
        return Forecast()


class Executor(Protocol):
    """Runs a picklable function over shards: in processes of this machine, or through Ray."""

    def run(self, work: Work, shards: Sequence[StageShard], done: Done, row_deadline_s: float) -> None: ...


class CpuStage(PipelineStage):
    """A stage whose rows are made by a picklable function of rows, `work`."""

    # Longest that the rows of one input may take; then the row is refused.
    row_deadline_s: float = 120.0

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    @abstractmethod
    def work(self) -> Work:
        """The function; it is pickled, so it holds settings and paths and no open file."""

    def run(self, shards: Sequence[StageShard], done: Done) -> None:
        if shards:
            self._executor.run(self.work(), shards, done, self.row_deadline_s)
