"""The wire schema: what goes in comes out, anything else is refused with a reason."""

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from golongrl.queue import Group, Response, UnreadableGroupError, VersionSpan, decode, encode
from golongrl.routes.reference import RoutesReference


@st.composite
def responses(draw: st.DrawFn) -> Response:
    lengths = draw(st.lists(st.integers(1, 9), max_size=3))
    ends = np.cumsum(lengths).tolist()
    tokens = ends[-1] if ends else 0
    scored = draw(st.booleans())
    return Response(
        ids=draw(arrays.arrays(np.int32, tokens)),
        logprobs=draw(arrays.arrays(np.float32, tokens)),
        version_spans=tuple(
            VersionSpan(draw(st.integers(0, 99)), end - length, end) for end, length in zip(ends, lengths, strict=True)
        ),
        finish_reason=draw(st.sampled_from(["stop", "length", "abort"])),
        reward=draw(st.floats(0, 1)) if scored else None,
        status="scored" if scored else "unscored",
        reason="" if scored else draw(st.text(max_size=8)),
    )


@st.composite
def groups(draw: st.DrawFn) -> Group:
    return Group(
        uid="3-14",
        row=14,
        epoch=3,
        task="T1",
        metric="F1",
        task_key=draw(st.text(max_size=5)),
        reward_mode="qa",
        prompt_ids=draw(arrays.arrays(np.int32, draw(st.integers(0, 50)))),
        responses=tuple(draw(st.lists(responses(), max_size=4))),
        worker="w",
        engine_version=draw(st.integers(0, 9)),
        timings={"generate": 1.5},
        routes=draw(st.sampled_from([None, RoutesReference("3-14.0123abcd.routes", "ab" * 32, 1 << 40)])),
    )


@given(groups())
def test_what_goes_in_comes_out(group: Group) -> None:
    again = decode(encode(group))
    for name in ("uid", "row", "epoch", "task", "metric", "task_key", "reward_mode", "worker", "engine_version"):
        assert getattr(again, name) == getattr(group, name)
    assert again.timings == group.timings
    assert again.routes == group.routes
    assert again.prompt_ids.dtype == np.int32
    np.testing.assert_array_equal(again.prompt_ids, group.prompt_ids)
    assert len(again.responses) == len(group.responses)
    for mine, theirs in zip(again.responses, group.responses, strict=True):
        assert mine.ids.dtype == np.int32
        # Bit for bit: training must not depend on the way through the queue.
        assert (mine.ids.tobytes(), mine.logprobs.tobytes()) == (theirs.ids.tobytes(), theirs.logprobs.tobytes())
        assert mine.version_spans == theirs.version_spans
        assert (mine.reward, mine.status, mine.reason) == (theirs.reward, theirs.status, theirs.reason)
    assert again.lowest_version == group.lowest_version


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense",
        msgpack.packb({"schema": 2, "responses": [], "prompt_ids": [b"ab", bytes(2)]}),
        msgpack.packb({"schema": 2, "responses": [], "prompt_ids": []}),
        msgpack.packb({"schema": 2, "responses": [], "prompt_ids": [b"ab", *[b"a"] * 17]}),
        msgpack.packb({"uid": "0-0"}),
        msgpack.packb([1]),
        encode(Group("0-0", 0, 0, "T1", "F1", "k", "m", np.zeros(3, np.int32), (), "w", 0))[:-3],
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(UnreadableGroupError):
        decode(data)


def test_a_group_of_a_worker_that_knows_no_routes_is_read() -> None:
    group = Group("0-0", 0, 0, "T1", "F1", "k", "m", np.zeros(3, np.int32), (), "w", 0)
    fields = msgpack.unpackb(encode(group)[5:])
    assert "routes" not in fields
    assert decode(msgpack.packb(fields)).routes is None


@pytest.mark.parametrize(
    "found", [["a", "b", 1], ["0-0.0123abcd.routes", "ab", "1"], "0-0.0123abcd.routes", ["../x", "ab", 1], {}, []]
)
def test_what_is_no_reference_to_routes_is_refused(found: object) -> None:
    group = Group("0-0", 0, 0, "T1", "F1", "k", "m", np.zeros(3, np.int32), (), "w", 0)
    data = msgpack.packb({**msgpack.unpackb(encode(group)[5:]), "routes": found})
    with pytest.raises(UnreadableGroupError, match="is not a reference to routes"):
        decode(data)


def test_other_schema_is_named() -> None:
    data = msgpack.packb({"schema": 1, "uid": "0-7"})
    with pytest.raises(UnreadableGroupError, match="group 0-7 has schema 1, this version reads 2"):
        decode(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logprobs": np.zeros(2, np.float32)}, "3 token ids but 2 log-probs"),
        ({"version_spans": (VersionSpan(0, 0, 2),)}, "end at token 2 of 3"),
        ({"version_spans": (VersionSpan(0, 0, 1), VersionSpan(1, 2, 3))}, "gap or overlap at token 1"),
        ({"reward": None}, "contradicts status"),
        ({"status": "unscored"}, "contradicts status"),
        ({"status": "maybe"}, "contradicts status"),
    ],
)
def test_contradictory_response_cannot_be_made(change: dict[str, object], message: str) -> None:
    fields: dict[str, object] = {
        "ids": np.zeros(3, np.int32),
        "logprobs": np.zeros(3, np.float32),
        "version_spans": (VersionSpan(0, 0, 3),),
        "finish_reason": "stop",
        "reward": 1.0,
    }
    with pytest.raises(ValueError, match=message):
        Response(**{**fields, **change})  # type: ignore[arg-type]
