"""Routes of a group: their shape, their files, and what a damaged file says."""

import dataclasses
import os
from pathlib import Path

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl.routes.groups import GroupRoutes
from golongrl.routes.model import MoeRouting, routing_of
from golongrl.routes.reference import RoutesReference, object_name
from golongrl.routes.store import (
    MARKER,
    NoRoutesSpaceError,
    RoutesError,
    owner_of,
    read_routes,
    remove_routes,
    write_routes,
)

NAME = object_name("0-7:" + "ab" * 16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / MARKER).write_text("{}")
    return tmp_path


def some_routes(experts: int = 8, lengths: tuple[int, ...] = (4, 1, 0), prompt: int = 5) -> GroupRoutes:
    random = np.random.default_rng(experts)
    dtype = np.uint8 if experts <= 256 else np.uint16

    def rows(count: int) -> np.ndarray:
        return random.integers(0, experts, (count, 3, 2)).astype(dtype)

    return GroupRoutes(rows(prompt), tuple(rows(length) for length in lengths), experts)


def equal(left: GroupRoutes, right: GroupRoutes) -> bool:
    pairs = zip((left.prompt, *left.responses), (right.prompt, *right.responses), strict=True)
    return left.experts == right.experts and all(
        one.dtype == other.dtype and np.array_equal(one, other) for one, other in pairs
    )


@pytest.mark.parametrize("experts", [2, 128, 256, 257, 60_000])
def test_what_is_written_is_read(folder: Path, experts: int) -> None:
    routes = some_routes(experts)
    reference = write_routes(folder, NAME, routes)
    assert sorted(path.name for path in folder.iterdir()) == [NAME, MARKER]
    assert reference.bytes == (folder / NAME).stat().st_size
    assert equal(read_routes(folder, reference), routes)


def test_numbers_of_experts_take_the_smallest_type() -> None:
    with pytest.raises(ValueError, match="8 experts need uint8"):
        GroupRoutes(np.zeros((2, 3, 2), np.uint16), (), 8)
    with pytest.raises(ValueError, match="300 experts need uint16"):
        GroupRoutes(np.zeros((2, 3, 2), np.uint8), (), 300)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": np.full((5, 3, 2), 8, np.uint8)}, "routes of prompt name expert 8 of 8"),
        ({"responses": (np.full((1, 3, 2), 200, np.uint8),)}, "routes of response 0 name expert 200 of 8"),
        ({"responses": (np.zeros((1, 3, 4), np.uint8),)}, "routes of response 0 have shape"),
        ({"prompt": np.zeros((5, 3), np.uint8)}, "routes of prompt have shape"),
    ],
)
def test_wrong_arrays_are_no_routes(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(some_routes(), **change)


@pytest.mark.parametrize(
    ("prompt", "tokens", "message"),
    [
        (5, [5, 2, 0], None),
        (5, [5, 2, 1], None),
        (4, [5, 2, 1], "routes of 5 prompt tokens, the prompt has 4"),
        (5, [5, 2], "routes of 3 responses, the group has 2"),
        (5, [4, 2, 1], "response 0 of 4 tokens has 4 rows of routes, not 3"),
        (5, [5, 2, 2], "response 2 of 2 tokens has 0 rows of routes, not 1"),
    ],
)
def test_routes_belong_to_a_group_of_their_lengths(prompt: int, tokens: list[int], message: str | None) -> None:
    assert some_routes().fault(prompt, tokens) == message


@given(st.integers(0, 400), st.integers(0, 255))
def test_a_damaged_file_is_refused(tmp_path_factory: pytest.TempPathFactory, place: int, value: int) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    (folder / MARKER).write_text("{}")
    reference = write_routes(folder, NAME, some_routes())
    content = bytearray((folder / NAME).read_bytes())
    place %= len(content)
    if content[place] == value:
        return
    content[place] = value
    (folder / NAME).write_bytes(content)
    with pytest.raises(RoutesError, match=f"routes .*{NAME}: their sha256 differs"):
        read_routes(folder, reference)


@pytest.mark.parametrize("change", [b"more", None])
def test_a_file_of_another_size_is_refused(folder: Path, change: bytes | None) -> None:
    reference = write_routes(folder, NAME, some_routes())
    content = (folder / NAME).read_bytes()
    (folder / NAME).write_bytes(content + change if change else content[:-1])
    with pytest.raises(RoutesError, match=r"bytes, \d+ were written"):
        read_routes(folder, reference)


@pytest.mark.parametrize("size", [10**15, 1 << 63, (1 << 64) - 1])
def test_no_memory_is_taken_for_what_a_reference_says(folder: Path, size: int) -> None:
    reference = write_routes(folder, NAME, some_routes())
    with pytest.raises(RoutesError, match=f"{reference.bytes} bytes, {size} were written"):
        read_routes(folder, reference._replace(bytes=size))


@pytest.mark.parametrize(
    "found", [[NAME + "\n", "00", 5], ["\u0663-1." + "a" * 8 + ".routes", "00", 5], [NAME, "00", True], [NAME, "00", 0]]
)
def test_what_is_no_reference_is_refused(found: list[object]) -> None:
    with pytest.raises(ValueError, match="is not a reference to routes"):
        RoutesReference.of(found)


def test_missing_routes_are_named(folder: Path) -> None:
    with pytest.raises(RoutesError, match=f"routes .*{NAME}: No such file"):
        read_routes(folder, RoutesReference(NAME, "00", 9))


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2}, {"rows": [5, 4, 1]}, {"experts": 2}, {"top_k": 3}, {"parts": [b"x"] * 4}, {"layers": "3"},
        *({name: value} for name in ("layers", "top_k") for value in (1 << 40, 1 << 60, 1 << 63, -1, 1.5, True, None)),
        *({"rows": [value, 4, 1, 0]} for value in (1 << 40, 1 << 60, 1 << 63, -1, "5", None)),
        {"rows": 5}, {"rows": [], "parts": []}, {"parts": [None] * 4}, {"experts": -1}, {"experts": 8.0},
    ],
)  # fmt: skip
def test_what_is_no_routes_is_refused_in_one_line(folder: Path, change: dict[str, object]) -> None:
    write_routes(folder, NAME, some_routes())
    content = msgpack.packb({**msgpack.unpackb((folder / NAME).read_bytes()), **change})
    (folder / NAME).write_bytes(content)
    import hashlib

    reference = RoutesReference(NAME, hashlib.sha256(content).hexdigest(), len(content))
    with pytest.raises(RoutesError, match="routes ") as refused:
        read_routes(folder, reference)
    assert "\n" not in str(refused.value)


def test_a_folder_without_the_marker_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(RoutesError, match="is the weight store mounted here"):
        write_routes(tmp_path, NAME, some_routes())
    (tmp_path / NAME).write_bytes(b"somebody's")
    assert remove_routes(tmp_path, [NAME]) == 0
    assert (tmp_path / NAME).exists()


def test_only_routes_are_removed(folder: Path) -> None:
    write_routes(folder, NAME, some_routes())
    staged = f"{NAME}.0123abcd.tmp"
    (folder / staged).touch()
    (folder / "notes.txt").touch()
    (folder / "sub").mkdir()
    names = [NAME, staged, "notes.txt", "sub", MARKER, "../outside", "9-9.abcdef01.routes"]
    assert remove_routes(folder, names) == 2
    assert sorted(path.name for path in folder.iterdir()) == [MARKER, "notes.txt", "sub"]


def test_a_full_disk_is_one_line_and_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NoRoutesSpaceError, match=f"no space left on {folder}: the routes {NAME}"):
        write_routes(folder, NAME, some_routes())
    assert [path.name for path in folder.iterdir()] == [MARKER]


def test_names_bind_the_row_and_the_attempt() -> None:
    assert object_name("3-14:" + "0f" * 16) == f"3-14.{'0f' * 16}.routes"
    for token in ("3-14", "x:0f0f0f0f", "3-14:../../etc", "3-14:0F0F0F0F"):
        with pytest.raises(ValueError, match="not of the form"):
            object_name(token)
    assert owner_of(f"{NAME}.0123abcd.tmp") == NAME
    assert owner_of("v3.tmp") is None


@pytest.mark.parametrize(
    ("config", "routing"),
    [
        ({"model_type": "qwen3"}, None),
        ({"model_type": "qwen3_moe", "num_experts": 0}, None),
        ({"model_type": "qwen3_moe", "num_hidden_layers": 1, "num_local_experts": 300}, MoeRouting(1, (0,), 8, 300)),
        (
            {"model_type": "qwen3_moe", "num_hidden_layers": 1, "num_local_experts": 300, "num_experts": 4},
            MoeRouting(1, (0,), 8, 300),
        ),
        ({"model_type": "qwen3_moe", "num_hidden_layers": 2, "mlp_only_layers": [0, 1]}, None),
        (
            {"model_type": "qwen3_moe", "num_hidden_layers": 48, "num_experts": 128, "num_experts_per_tok": 8},
            MoeRouting(48, tuple(range(48)), 8, 128),
        ),
        (
            {
                "model_type": "qwen3_moe", "num_hidden_layers": 6, "num_experts": 300, "num_experts_per_tok": 2,
                "decoder_sparse_step": 2, "mlp_only_layers": [3],
            },
            MoeRouting(6, (1, 5), 2, 300),
        ),
    ],
)  # fmt: skip
def test_how_a_model_routes(config: dict[str, object], routing: MoeRouting | None) -> None:
    assert routing_of(config) == routing


def test_bytes_of_a_token() -> None:
    assert MoeRouting(48, tuple(range(48)), 8, 128).token_bytes == 384
    assert MoeRouting(6, (1, 5), 2, 300).token_bytes == 8
