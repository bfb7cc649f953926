"""A group: one prompt and its n responses, as it travels from a rollout worker to the learner.

On the wire: a checksum, then one msgpack map whose first field is the schema version, arrays as little-endian bytes;
never pickle. A map without a checksum, as version 0.1 wrote it, is read, too.
Token ids travel as their low halves and, bit by bit, their high ones: 18 bits a token for the usual vocabularies, in a
tenth of the CPU that packing with zstd takes. Log-probs are nearly random bits, which nothing packs. The prompt is
stored once. Invariants, checked where a group is made: a response has one log-prob a token, and its version spans cover
its tokens from 0 without a gap.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgpack

from golongrl.arrays import NDArray, np
from golongrl.queue.errors import UnreadableGroupError
from golongrl.routes.reference import RoutesReference

SCHEMA = 2
# What a body with a checksum begins with: msgpack's mark of a 32-bit integer, which is never a map's.
_CHECKED = b"\xce"
_CRC_BYTES = 4
# Ids travel as int32.
_MOST_IDS = 1 << 31
# Whole numbers up to here are exact in Lua, and in a JSON of a tool. Seconds since 1970 are far below it.
_MOST = 1 << 53
# Characters of a name that a message quotes.
_MOST_NAME = 100


class VersionSpan(NamedTuple):
    """Tokens [start, end) of a response were sampled by policy `version`."""

    version: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, eq=False)
class Response:
    """One sampled response: `ids` int32 [T], `logprobs` float32 [T] (behaviour log-probs), T may be 0.

    `reward` is None exactly when `status` is "unscored" (then `reason` says why): never 0 for what is not known.
    """

    ids: NDArray[np.int32]
    logprobs: NDArray[np.float32]
    version_spans: tuple[VersionSpan, ...]
    finish_reason: str
    reward: float | None
    status: str = "scored"
    reason: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError on arrays or spans that contradict each other."""
        if len(self.ids) != len(self.logprobs):
            raise ValueError(f"{len(self.ids)} token ids but {len(self.logprobs)} log-probs")
        if self.status not in ("scored", "unscored") or (self.reward is None) != (self.status == "unscored"):
            raise ValueError(f"reward {self.reward} contradicts status {self.status!r}")
        end = 0
        for span in self.version_spans:
            if span.start != end or span.end <= span.start:
                raise ValueError(f"version spans leave a gap or overlap at token {end}: {self.version_spans}")
            end = span.end
        if end != len(self.ids):
            raise ValueError(f"version spans end at token {end} of {len(self.ids)}")


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """One prompt's responses with all the learner needs; `prompt_ids` int32 [P], `timings` in seconds by phase.

    `engine_version` is the lease's; tokens may be newer (in-place adoption), never older.
    """

    uid: str
    row: int
    epoch: int
    task: str
    metric: str
    task_key: str
    reward_mode: str
    prompt_ids: NDArray[np.int32]
    responses: tuple[Response, ...]
    worker: str
    engine_version: int
    timings: dict[str, float] = field(default_factory=dict)
    moments: dict[str, float] = field(default_factory=dict)
    """When it was leased and submitted, by the worker's clock: seconds since 1970. Older workers' groups have none."""
    routes: RoutesReference | None = None
    """Where its routes are, with `learner.routing_replay`; older workers' groups have none."""
    schema: int = SCHEMA
    lease: str = ""
    """Token of the lease that it was handed in under, by which the queue knows its body."""

    @property
    def tokens(self) -> int:
        """Tokens of the prompt (once) and of every response."""
        return len(self.prompt_ids) + sum(len(response.ids) for response in self.responses)

    @property
    def lowest_version(self) -> int:
        """The oldest policy that sampled any token; the lease's version for a group without tokens."""
        return min(
            (span.version for response in self.responses for span in response.version_spans),
            default=self.engine_version,
        )

    @property
    def highest_version(self) -> int:
        """The newest policy that sampled any token; the lease's version for a group without tokens."""
        return max(
            (span.version for response in self.responses for span in response.version_spans),
            default=self.engine_version,
        )


def fault(group: Group, vocabulary: int = 0) -> str | None:
    """Why `group` cannot be trained on, None if it can: ids outside of the vocabulary (0: its size is not known),
    log-probs that are no log-probs, rewards, versions or times that are no numbers, no responses."""
    if not group.responses:
        return "it has no responses"
    if wrong := _seconds_fault("timings", group.timings) or _seconds_fault("moments", group.moments):
        return wrong
    if wrong := _ids_fault(group.prompt_ids, vocabulary):
        return f"prompt: {wrong}"
    for index, response in enumerate(group.responses):
        wrong = _ids_fault(response.ids, vocabulary) or _logprobs_fault(response.logprobs)
        if response.reward is not None and not _is_number(response.reward):
            wrong = wrong or f"reward {response.reward!r}"
        if wrong := wrong or _spans_fault(response.version_spans):
            return f"response {index}: {wrong}"
    return None


def rewards_fault(group: Group) -> str | None:
    """Which reward of `group` is no score, None if all are."""
    for index, response in enumerate(group.responses):
        if response.reward is not None and not 0 <= response.reward <= 1:
            return f"response {index}: reward {response.reward!r} is not from 0 to 1"
    return None


def _is_number(value: object) -> bool:
    """False for NaN, an infinity, and what is too large to travel."""
    return isinstance(value, int | float) and -_MOST <= value <= _MOST


def _spans_fault(spans: Sequence[VersionSpan]) -> str | None:
    if all(isinstance(span.version, int) and abs(span.version) <= _MOST for span in spans):
        return None
    return f"versions of its tokens are not whole numbers of at most {_MOST}"


def _seconds_fault(what: str, seconds: object) -> str | None:
    if not isinstance(seconds, dict) or not all(isinstance(name, str) for name in seconds):
        return f"{what} are not a table of seconds by name"
    wrong = next((name for name, value in seconds.items() if not _is_number(value)), None)
    return None if wrong is None else f"{what}: {wrong[:_MOST_NAME]!a} is not a finite number of seconds"


def _ids_fault(ids: NDArray[np.int32], vocabulary: int) -> str | None:
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        return f"token ids of type {ids.dtype} and shape {ids.shape}"
    low, high = int(ids.min(initial=0)), int(ids.max(initial=0))
    if low < 0:
        return f"token id {low} is negative"
    if high >= (vocabulary or _MOST_IDS):
        return f"token id {high} is outside of the vocabulary" + (f" of {vocabulary}" if vocabulary else "")
    return None


def _logprobs_fault(logprobs: NDArray[np.float32]) -> str | None:
    if logprobs.ndim != 1 or logprobs.dtype.kind != "f":
        return f"log-probs of type {logprobs.dtype} and shape {logprobs.shape}"
    # NaN fails every comparison, so it is found as well.
    wrong = ~((logprobs <= 0) & (logprobs > -np.inf))
    if not wrong.any():
        return None
    place = int(wrong.argmax())
    return f"log-prob {logprobs[place]} of token {place} is not a finite number of at most 0"


def encode(group: Group) -> bytes:
    """The group as bytes."""
    fields: dict[str, Any] = {
        "schema": group.schema,
        "uid": group.uid,
        "row": group.row,
        "epoch": group.epoch,
        "task": group.task,
        "metric": group.metric,
        "task_key": group.task_key,
        "reward_mode": group.reward_mode,
        "prompt_ids": _pack_ids(group.prompt_ids),
        "responses": [
            {
                "ids": _pack_ids(response.ids),
                "logprobs": np.ascontiguousarray(response.logprobs, dtype="<f4").tobytes(),
                "version_spans": response.version_spans,
                "finish_reason": response.finish_reason,
                "reward": response.reward,
                "status": response.status,
                "reason": response.reason,
            }
            for response in group.responses
        ],
        "worker": group.worker,
        "engine_version": group.engine_version,
        "timings": group.timings,
    }
    if group.moments:
        fields["moments"] = group.moments
    if group.lease:
        fields["lease"] = group.lease
    if group.routes:
        fields["routes"] = group.routes
    packed: bytes = msgpack.packb(fields)
    return _CHECKED + zlib.crc32(packed).to_bytes(_CRC_BYTES) + packed


def decode(data: bytes) -> Group:
    """The group in `data`. Raises UnreadableGroupError on anything else, or on another schema version."""
    try:
        fields = msgpack.unpackb(_checked(data))
        if fields["schema"] != SCHEMA:
            raise UnreadableGroupError(
                f"group {fields.get('uid')} has schema {fields['schema']}, this version reads {SCHEMA}"
            )
        responses = tuple(
            Response(
                ids=_unpack_ids(response["ids"]),
                logprobs=np.frombuffer(response["logprobs"], "<f4"),
                version_spans=tuple(VersionSpan(*span) for span in response["version_spans"]),
                finish_reason=response["finish_reason"],
                reward=response["reward"],
                status=response["status"],
                reason=response["reason"],
            )
            for response in fields["responses"]
        )
        prompt_ids = _unpack_ids(fields["prompt_ids"])
        routes = RoutesReference.of(fields.get("routes"))
        return Group(**{**fields, "responses": responses, "prompt_ids": prompt_ids, "routes": routes})
    except (msgpack.UnpackException, ValueError, KeyError, TypeError) as error:
        raise UnreadableGroupError(f"{len(data)} bytes are not a group: {error}") from error


def _checked(data: bytes) -> memoryview:
    """The msgpack map in `data`, whose checksum is right; a server may load a damaged file without noticing it."""
    whole = memoryview(data)
    if not data.startswith(_CHECKED):
        return whole
    start = len(_CHECKED) + _CRC_BYTES
    if zlib.crc32(whole[start:]) != int.from_bytes(whole[len(_CHECKED) : start]):
        raise ValueError("their checksum differs from the one they were stored with")
    return whole[start:]


def _pack_ids(ids: NDArray[np.int32]) -> list[bytes]:
    whole = np.ascontiguousarray(ids, dtype="<i4").view("<u4")
    high = (whole >> 16).astype("<u2")
    planes = int(high.max(initial=0)).bit_length()
    return [
        whole.astype("<u2").tobytes(),
        *(np.packbits(high & (1 << place) != 0).tobytes() for place in range(planes)),
    ]


def _unpack_ids(packed: Sequence[bytes]) -> NDArray[np.int32]:
    low, *planes = (np.frombuffer(part, "<u2" if place == 0 else np.uint8) for place, part in enumerate(packed))
    if len(planes) > 16 or any(len(plane) != (len(low) + 7) // 8 for plane in planes):
        raise ValueError(f"{len(low)} low halves of ids do not belong to bit planes of {list(map(len, planes))} bytes")
    high = np.zeros(len(low), "<u2")
    for place, plane in enumerate(planes):
        high |= np.unpackbits(plane, count=len(low)).astype("<u2") << place
    ids: NDArray[np.int32] = (high.astype("<u4") << 16 | low).view("<i4")
    return ids
