"""A run's raw keys, read at one moment, and what must hold of them whatever happened: the protocol's invariants.

Reads the keys themselves rather than `stats`, so that the scripts cannot vouch for themselves.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
import redis

ASIDE = "!"
MARK = b"\0"
# Bytes behind the rows by which the run knows them.
TRAILER = 16


@dataclass(frozen=True)
class Picture:
    """Everything of one run, decoded."""

    settings: dict[str, Any]
    state: dict[str, Any]
    sequence: list[str]
    """uids of all rows, in the order they are dealt."""
    returned: set[str]
    leased: list[str]
    ready: list[str]
    batches: dict[int, list[str]]
    groups: dict[str, dict[str, Any]]
    outcome: dict[str, str]
    bodies: dict[str, int]
    deadlines: set[str]
    requests: dict[str, str]
    set_aside: dict[str, dict[str, Any]]
    places: dict[int, list[str]]
    """As `batches`, with the marks of groups that were set aside."""
    retried: bool
    """A person has dealt a row again that was set aside."""

    @property
    def unread(self) -> set[str]:
        return set(self.sequence[self.state["cursor"] :])

    def open_places(self, step: int) -> int:
        return int(self.state.get(f"open:{step}", 0))

    def version(self, uid: str) -> int:
        group = self.groups[uid]
        return int(group.get("lowest_version", group["engine_version"]))


def read(client: "redis.Redis[bytes]", run: str) -> Picture:
    """The run's picture. Nobody else may be writing."""
    prefix = f"golongrl:{{{run}}}:"
    pipe = client.pipeline(transaction=True)
    pipe.get(prefix + "settings").hgetall(prefix + "state").get(prefix + "rows").zrange(prefix + "returned", 0, -1)
    pipe.zrange(prefix + "leased", 0, -1).zrange(prefix + "ready", 0, -1).hgetall(prefix + "groups")
    pipe.get(prefix + "outcome").zrange(prefix + "deadlines", 0, -1).hgetall(prefix + "requests").keys(prefix + "b*:*")
    pipe.hgetall(prefix + "set_aside").hget(prefix + "redone", "set_aside")
    raw_settings, raw_state, rows, returned, leased, ready, groups, outcome, *others = pipe.execute()
    deadlines, requests, keys, aside, retried = others
    for found in (raw_state, groups, requests, aside):
        assert found.pop(MARK) is not None
    for members in (returned, leased, ready, deadlines):
        members.remove(MARK)
    settings, state = msgpack.unpackb(raw_settings), _fields(raw_state)
    sequence = _sequence(rows[:-TRAILER], settings["epoch_ends"])
    steps = {int(name.rpartition(b":")[2]): name for name in keys if b":batch:" in name}
    bodies = [name for name in keys if b":body:" in name]
    pipe = client.pipeline(transaction=False)
    for name in steps.values():
        pipe.lrange(name, 0, -1)
    for name in bodies:
        pipe.strlen(name)
    values = pipe.execute()
    places = {step: _texts(uids) for step, uids in zip(steps, values, strict=False)}
    return Picture(
        settings,
        state,
        sequence,
        {sequence[int(position)] for position in returned},
        _texts(leased),
        _texts(ready),
        {step: [uid for uid in uids if not uid.startswith(ASIDE)] for step, uids in places.items()},
        {uid.decode(): msgpack.unpackb(packed) for uid, packed in groups.items()},
        _outcomes(outcome[:-TRAILER], sequence, settings["table_rows"]),
        {name.rpartition(b":")[2].decode(): size for name, size in zip(bodies, values[len(steps) :], strict=True)},
        set(_texts(deadlines)),
        {request.decode(): uid.decode() for request, uid in requests.items()},
        {uid.decode(): msgpack.unpackb(packed) for uid, packed in aside.items()},
        places,
        bool(retried),
    )


def check(picture: Picture) -> None:
    """Raises AssertionError where an invariant is broken."""
    _each_row_in_one_place(picture)
    _records_and_bodies_belong(picture)
    _batches_are_whole_and_fresh(picture)
    state, settings = picture.state, picture.settings
    eta, size = settings["max_staleness"], settings["groups_per_step"]
    assert state["committed"] <= state["v"] <= state["taken"]
    for uid in picture.leased:
        assert picture.groups[uid]["engine_version"] <= state["v"] + 1, f"{uid} leased by an engine of the future"
    open_places = sum(picture.open_places(step) for step in picture.batches)
    flying = sorted([*picture.leased, *picture.ready], key=lambda uid: picture.groups[uid]["seq"])
    if settings["order"] == "lease":
        # The invariant that admission and preference keep: everybody finds a place in time.
        for place, uid in enumerate(flying):
            assert state["taken"] + (place - open_places) // size - picture.version(uid) <= eta, (
                f"{uid} at place {place} will be too stale"
            )
    else:
        late = [uid for uid in flying if state["taken"] - picture.version(uid) > eta]
        assert len(late) <= open_places, f"some of {late} should have been given up"
        waited_for = sorted(picture.version(uid) for uid in flying if picture.groups[uid]["given_up"] >= 2)
        for place, version in enumerate(waited_for):
            assert state["taken"] + (place - open_places) // size - version <= eta, (
                "a row given up twice cannot be waited for"
            )


def _each_row_in_one_place(picture: Picture) -> None:
    places = Counter[str]()
    ended = [uid for uid, mark in picture.outcome.items() if mark in "TRA"]
    assert picture.state["ended"] == len(ended) - len(picture.set_aside)
    assert {uid for uid, mark in picture.outcome.items() if mark == "A"} == set(picture.set_aside)
    assert {uid for uid, mark in picture.outcome.items() if mark == "\0"} == picture.unread
    for uids in (picture.unread, picture.returned, picture.leased, picture.ready, ended, *picture.batches.values()):
        places.update(uids)
    assert places == Counter(picture.sequence), f"rows lost or twice: {places - Counter(picture.sequence)}"


def _records_and_bodies_belong(picture: Picture) -> None:
    batched = [uid for uids in picture.batches.values() for uid in uids]
    assert set(picture.groups) == {*picture.leased, *picture.ready, *batched}
    assert picture.state["batched"] == len(batched)
    aside = {uid: record["bytes"] for uid, record in picture.set_aside.items() if record["bytes"]}
    assert set(picture.bodies) == {*picture.ready, *batched, *aside}
    assert picture.state["bytes"] == sum(picture.bodies.values()) - sum(aside.values())
    assert picture.state["aside_bytes"] == sum(aside.values()) <= picture.settings["max_bytes"] / 16
    assert picture.deadlines == set(picture.leased)
    assert picture.requests == {picture.groups[uid]["request"]: uid for uid in picture.leased}
    for place, uids in (("leased", picture.leased), ("ready", picture.ready), ("batch", batched)):
        for uid in uids:
            assert picture.groups[uid]["state"] == place
    sequence_numbers = [group["seq"] for group in picture.groups.values()]
    assert len(set(sequence_numbers)) == len(sequence_numbers)


def _batches_are_whole_and_fresh(picture: Picture) -> None:
    eta, size = picture.settings["max_staleness"], picture.settings["groups_per_step"]
    taken = picture.state["taken"]
    assert sorted(picture.batches) == list(range(picture.state["committed"] + 1, taken + 1))
    for step, uids in picture.batches.items():
        for uid in uids:
            assert step - 1 - picture.version(uid) <= eta, f"{uid} is too stale for batch {step}"
        open_places = picture.open_places(step)
        assert 0 <= open_places <= len(picture.places[step]) - len(uids)
        assert not open_places or step > picture.state["v"]
        places = len(uids) + open_places
        assert places <= size, f"batch {step} has {places} places"
        # A row that a person had dealt again makes another batch after the last one.
        if places < size and not picture.retried:
            left = {*picture.unread, *picture.returned, *picture.leased, *picture.ready}
            assert not left, f"sealed before {left}"


def _fields(raw: dict[bytes, bytes]) -> dict[str, Any]:
    return {
        name.decode(): int(value) if value.lstrip(b"-").isdigit() else value.decode("latin-1")
        for name, value in raw.items()
    }


def _texts(raw: Iterable[bytes]) -> list[str]:
    return [item.decode() for item in raw]


def _sequence(rows: bytes, epoch_ends: list[int]) -> list[str]:
    indices = np.frombuffer(rows, "<i4")
    epochs = np.searchsorted(epoch_ends, np.arange(len(indices)), side="right")
    return [f"{epoch}-{row}" for epoch, row in zip(epochs, indices, strict=True)]


def _outcomes(outcome: bytes, sequence: list[str], table_rows: int) -> dict[str, str]:
    marks = {}
    for uid in sequence:
        epoch, _, row = uid.partition("-")
        offset = int(epoch) * table_rows + int(row)
        marks[uid] = chr(outcome[offset]) if offset < len(outcome) else "\0"
    return marks
