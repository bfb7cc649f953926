"""Validation work: the rows of the validation set, to be answered by one policy version, shared out over the workers.

One round at a time, opened by the learner for the weights it has announced. Workers whose engine holds exactly these
weights lease rows, submit one result a row, and renew what they hold; a row whose worker is gone comes back when its
lease runs out, and is ended unscored when that happened three times. The learner watches the progress, reads the
results and closes the round; results wait in Redis until then, so a learner that crashed continues the round.

A round is bounded (each row is answered once), so what it takes from training rollouts is, too. It has keys of its own
(`validation*`) and touches neither rows, leases nor versions of the sample queue. A result is text without token ids,
64 KB for 16K tokens; it is taken whatever the budget says, and counts in the queue's bytes until the round is closed:
where results fill `queue.max_bytes`, training leases wait as they do for samples.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import msgpack

from golongrl.queue.calls import Calls
from golongrl.queue.connection import Connection
from golongrl.queue.errors import QueueDamagedError, UnreadableGroupError

# Results read in one reply: 32 of the largest kind (16K tokens of text) are about two megabytes.
FETCH = 32


@dataclass(frozen=True, slots=True)
class ValidationItem:
    """A leased row of the validation set; `token` proves the lease."""

    row: int
    token: str


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """One row's answer. `reward` is None exactly when it is unscored, and then `reason` says why; `tokens` counts the
    response's, `worker` is empty where no worker could answer."""

    row: int
    reward: float | None = None
    reason: str = ""
    response: str = ""
    tokens: int = 0
    finish_reason: str = ""
    worker: str = ""


@dataclass(frozen=True, slots=True)
class ValidationProgress:
    """How many rows of the round wait for a worker, are being answered, are done."""

    todo: int
    leased: int
    done: int

    def __str__(self) -> str:
        return f"{self.done} rows done, {self.leased} being answered, {self.todo} not leased yet"


class ValidationWork:
    """The validation round of one run; reached as `SampleQueue.validation`."""

    def __init__(self, connection: Connection, calls: Calls) -> None:
        self._connection = connection
        self._calls = calls

    # -- the learner --

    async def open(self, fence: str, version: int, lineage: str, rows: int) -> None:
        """Begin the round of the announced weights, or continue it. Replaces any other round.
        Raises FencedError, OutOfOrderError (these weights are not the announced ones)."""
        args = {"fence": fence, "version": version, "lineage": lineage, "rows": rows}
        self._calls.check(await self._calls.run("validation_open", args), f"validation of version {version}")

    async def progress(self) -> ValidationProgress:
        """Where the round stands."""
        answer = await self._calls.run("validation_progress", {})
        return ValidationProgress(answer["todo"], answer["leased"], answer["done"])

    async def results(self, rows: int) -> list[ValidationResult]:
        """The results there are, by row. Raises UnreadableGroupError on one that another version wrote,
        QueueDamagedError where the server lost one or has another run's or row's instead."""
        now = await self._calls.run("validation_progress", {})
        found = []
        for start in range(0, rows, FETCH):
            page = range(start, min(rows, start + FETCH))
            bodies = await self._connection.get_many([f"validation_result:{row}" for row in page])
            found += [
                unpack(row, self._own(row, body, now["trailer"]))
                for row, body in zip(page, bodies, strict=True)
                if body is not None
            ]
        if len(found) < now["done"]:
            there = {result.row for result in found}
            raise self._damaged("lost", next(row for row in range(rows) if row not in there))
        return found

    def _own(self, row: int, body: bytes, trailer: str) -> bytes:
        """The result without what its script marked it with."""
        ending = f":{row}:{trailer}".encode()
        if not trailer or not body.endswith(ending):
            raise self._damaged("has another run's or row's in place of", row)
        return body.removesuffix(ending)

    def _damaged(self, how: str, row: int) -> QueueDamagedError:
        key = self._connection.key(f"validation_result:{row}")
        return QueueDamagedError(
            f"the server {how} a result of the validation, {key}: start the learner again, which begins the round again"
        )

    async def close(self, fence: str) -> None:
        """Forget the round and its results. Raises FencedError."""
        self._calls.check(await self._calls.run("validation_close", {"fence": fence}), "end of a validation")

    # -- workers --

    async def lease(self, version: int, lineage: str, count: int, data: str = "") -> list[ValidationItem]:
        """Up to `count` rows for an engine that holds these weights; none where no round of them is open. `data` as for
        the rows to train on."""
        random = secrets.token_hex(16)
        args = {"version": version, "lineage": lineage, "count": count, "random": random, "data": data}
        answer = await self._calls.run("validation_lease", args)
        return [ValidationItem(row, f"{row}:{random}") for row in answer["rows"]]

    async def renew(self, items: Sequence[ValidationItem]) -> list[bool]:
        """Prolong leases; False: the lease is lost or the round is over, stop that work."""
        answer = await self._calls.run("validation_renew", {"items": [_named(item) for item in items]})
        return [bool(kept) for kept in answer["kept"]]

    async def submit(self, item: ValidationItem, result: ValidationResult) -> bool:
        """Hand in a row's result. False if the lease was no longer held (or this is a repeat): nothing changed."""
        return bool((await self._calls.run("validation_submit", _named(item), pack(result)))["held"])

    async def release(self, item: ValidationItem, reason: str, *, lost: bool) -> bool:
        """Give a row back; `lost`: the attempt on it failed, and counts towards giving it up."""
        args = {**_named(item), "reason": reason, "lost": lost}
        return bool((await self._calls.run("validation_release", args))["held"])


def _named(item: ValidationItem) -> dict[str, str]:
    return {"row": str(item.row), "token": item.token}


def pack(result: ValidationResult) -> bytes:
    """The result as msgpack; what UTF-8 has no bytes for becomes a question mark."""
    packed: bytes = msgpack.packb(
        {
            "reward": result.reward,
            "reason": result.reason,
            "response": result.response.encode("utf-8", "replace").decode("utf-8"),
            "tokens": result.tokens,
            "finish_reason": result.finish_reason,
            "worker": result.worker,
        }
    )
    return packed


def unpack(row: int, body: bytes) -> ValidationResult:
    """The result of `row`. Raises UnreadableGroupError on anything else."""
    try:
        fields = msgpack.unpackb(body)
        return ValidationResult(row=row, **fields)
    except (msgpack.UnpackException, ValueError, TypeError) as error:
        raise UnreadableGroupError(f"validation row {row}: {len(body)} bytes are not a result: {error}") from error
