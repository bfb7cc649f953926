"""Calls of one run's scripts, and what their answers say of the run itself: that it is not set up, damaged, of another
version, or another learner's. `SampleQueue` and its `ValidationWork` make all their calls here.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgpack

from golongrl.queue.connection import Connection
from golongrl.queue.errors import (
    FencedError,
    NotSetUpError,
    OutOfOrderError,
    QueueDamagedError,
    SettingsMismatchError,
)


class Calls:
    """The calls of one run."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._run_name = connection.run_name

    async def run(
        self,
        name: str,
        args: Mapping[str, Any],
        *blobs: bytes,
        before: tuple[tuple[Any, ...], ...] = (),
        durable: bool = False,
    ) -> dict[str, Any]:
        """The script's answer; the arguments are `Connection.run`'s. Raises NotSetUpError, SettingsMismatchError and
        QueueDamagedError besides what that raises."""
        answer = await self._connection.run(name, args, *blobs, before=before, durable=durable)
        match answer["s"]:
            case "not_set_up":
                raise NotSetUpError(
                    f"run {self._run_name} is not on this Redis. If it has never started: its learner sets it up. "
                    "If it has: Redis lost it, and the learner's next start goes on from its last checkpoint"
                )
            case "format":
                raise SettingsMismatchError(
                    f"run {self._run_name} was made by another version of golongrl (queue format {answer['format']}, "
                    f"this version reads {answer['reads']}): end it with that version, use another --run, or "
                    f"remove it with `golongrl queue remove --run {self._run_name}`"
                )
            case "data":
                raise SettingsMismatchError(
                    f"run {self._run_name} has other data than this worker reads: they were prepared again since the "
                    "run began; restore the data that it began with, or start a new run"
                )
            case "damaged":
                raise QueueDamagedError.lost(self._run_name, answer["key"])
            case "foreign":
                raise QueueDamagedError.foreign(self._run_name, answer["key"])
            case "torn":
                raise QueueDamagedError.torn(self._run_name, answer.get("key"))
        return answer

    def check(self, answer: Mapping[str, Any], what: str) -> None:
        """Whether the learner may do `what`. Raises FencedError, OutOfOrderError."""
        if answer["s"] == "fenced":
            raise FencedError(f"{what}: another learner attached to run {self._run_name}; this one must end")
        if answer["s"] == "out_of_order":
            raise OutOfOrderError(
                f"{what}: run {self._run_name} is at version {answer['v']}, its last batch is {answer['taken']}"
            )

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Around the reading of an answer, whose values stand in keys that others can write.

        Raises:
            QueueDamagedError: they are not what this program writes.
        """
        try:
            yield
        except (ValueError, TypeError, LookupError, AttributeError, msgpack.UnpackException) as error:
            raise QueueDamagedError.unreadable(
                self._run_name, self._connection.name, f"{type(error).__name__}: {error}"
            ) from error
