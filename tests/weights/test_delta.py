"""What changed between two files: to the bit, small where little changed, refused where it does not fit."""

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl.weights.delta import DeltaError, changed, difference, patched

SIZE = 4096


def _files(share: float, width: int = 2, size: int = SIZE) -> tuple[bytes, bytes]:
    rng = np.random.default_rng(0)
    old = rng.integers(0, 256, size, dtype=np.uint8)
    words = old.view({1: np.uint8, 2: np.uint16, 4: np.uint32}[width]).copy()
    words[rng.random(len(words)) < share] ^= 1
    return old.tobytes(), words.tobytes()


@given(st.binary(min_size=0, max_size=200), st.lists(st.tuples(st.integers(0, 199), st.binary(min_size=1, max_size=3))),
       st.sampled_from([1, 2, 4, 8]))  # fmt: skip
def test_patched_is_the_new_file_to_the_bit(old: bytes, edits: list[tuple[int, bytes]], width: int) -> None:
    old = old + bytes(SIZE)
    new = bytearray(old)
    for place, content in edits:
        new[place : place + len(content)] = content
    delta = difference(old, bytes(new), width)
    assert delta is not None
    assert patched(old, delta) == bytes(new)


def test_equal_files_differ_in_nothing() -> None:
    old, _ = _files(0)
    delta = difference(old, old, 2)
    assert delta is not None
    assert changed(delta) == 0
    assert patched(old, delta) == old


def test_few_changed_elements_are_few_bytes() -> None:
    old, new = _files(0.03, size=1 << 20)
    delta = difference(old, new, 2)
    assert delta is not None
    assert changed(delta) == np.count_nonzero(np.frombuffer(old, np.uint16) != np.frombuffer(new, np.uint16))
    assert len(delta) * 20 < len(new)


@pytest.mark.parametrize("width", [2, 4])
def test_what_is_not_worth_it_is_not_made(width: int) -> None:
    rng = np.random.default_rng(1)
    old, new = (rng.integers(0, 256, SIZE, dtype=np.uint8).tobytes() for _ in range(2))
    assert difference(old, new, width) is None
    assert difference(old, old + b"xx", width) is None


@pytest.mark.parametrize(
    "change",
    [
        {"bytes": SIZE - 2}, {"bytes": -1}, {"width": 3}, {"width": True}, {"count": -1}, {"count": SIZE},
        {"schema": 2}, {"gaps": b""}, {"flips": b"nothing"}, {"gaps": None}, {"count": 1},
    ],
)  # fmt: skip
def test_a_damaged_delta_is_refused(change: dict[str, object]) -> None:
    old, new = _files(0.02)
    delta = difference(old, new, 2)
    assert delta is not None
    broken = msgpack.packb(msgpack.unpackb(delta) | change)
    with pytest.raises(DeltaError):
        patched(old, broken)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_delta_or_an_error(content: bytes) -> None:
    with pytest.raises(DeltaError):
        patched(bytes(64), content)


def test_places_beyond_the_file_are_refused() -> None:
    small, large = (bytes(SIZE), bytes(2 * SIZE))
    edited = bytearray(large)
    edited[-1] = 1
    delta = difference(large, bytes(edited), 2)
    assert delta is not None
    moved = msgpack.packb(msgpack.unpackb(delta) | {"bytes": SIZE})
    with pytest.raises(DeltaError, match="not in its file"):
        patched(small, moved)
