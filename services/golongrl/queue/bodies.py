"""The stored bytes of groups, packed for the way to the server and fetched from it.

Invariants: no event loop waits while much is packed or unpacked; what is fetched is checked as if a stranger had
written it.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple

from golongrl.queue.connection import Connection
from golongrl.queue.errors import UnreadableGroupError
from golongrl.queue.schema import Group, decode, encode, fault, rewards_fault

# As in lua/prelude.lua: marks the place of a group that was set aside.
ASIDE = "!"
# The reason of an `Unfit` whose bytes are not there.
LOST = "its body is not there"
# Bodies fetched in one reply: 8 of the largest kind (3.8 MB) are 30 MB, which does not hold up other clients.
FETCH = 8
# Fewer tokens to pack, or bytes to unpack, take less time (a millisecond) than a thread takes to start on them.
INLINE_TOKENS = 50_000
INLINE_BYTES = 500_000


class Unfit(NamedTuple):
    """A stored group that cannot be trained."""

    uid: str
    reason: str


async def packed(group: Group) -> bytes:
    """The body of a group."""
    return encode(group) if group.tokens < INLINE_TOKENS else await asyncio.to_thread(encode, group)


class _Place(NamedTuple):
    """What the queue knows of a stored group: the token of its lease, and its row's task ("": it does not say)."""

    uid: str
    token: str
    task_key: str


async def fetch(connection: Connection, batch: Mapping[str, Any]) -> list[Group | Unfit]:
    """The groups of a batch's places that were not set aside; while one part is unpacked the next one travels.

    Args:
        batch: as the script `take` answers it.
    """
    places = map(_Place, batch["uids"], batch["tokens"], batch["task_keys"])
    kept = [place for place in places if not place.uid.startswith(ASIDE)]
    groups: list[Group | Unfit] = []
    unpacking: asyncio.Task[list[Group | Unfit]] | None = None
    for start in range(0, len(kept), FETCH):
        part = kept[start : start + FETCH]
        bodies = await connection.get_many([f"body:{place.uid}" for place in part])
        if unpacking:
            groups += await unpacking
        unpacking = asyncio.create_task(_unpacked(list(zip(part, bodies, strict=True)), batch["vocabulary"]))
    return [*groups, *(await unpacking if unpacking else ())]


async def _unpacked(found: list[tuple[_Place, bytes | None]], vocabulary: int) -> list[Group | Unfit]:
    def unpack() -> list[Group | Unfit]:
        return [_read(place, body, vocabulary) for place, body in found]

    if sum(len(body or b"") for _, body in found) < INLINE_BYTES:
        return unpack()
    return await asyncio.to_thread(unpack)


def _read(place: _Place, body: bytes | None, vocabulary: int) -> Group | Unfit:
    uid = place.uid
    if body is None:
        return Unfit(uid, LOST)
    try:
        group = decode(body)
    except UnreadableGroupError as error:
        return Unfit(uid, str(error))
    # A worker of an older version writes no lease into it.
    if not group.uid == f"{group.epoch}-{group.row}" == uid or (group.lease and group.lease != place.token):
        return Unfit(uid, f"its body is of another lease, {group.lease or group.uid}: somebody overwrote its key")
    if place.task_key and group.task_key != place.task_key:
        return Unfit(uid, f"task_key {group.task_key!a} differs from its row's {place.task_key!a}")
    wrong = fault(group, vocabulary) or rewards_fault(group)
    return Unfit(uid, wrong) if wrong else group
