"""A model folder's weights, read from their headers: what is missing or cut is named before anything starts."""

import json
import math
import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from golongrl.data.errors import DataError
from golongrl.data.weight_files import INDEX, stored_tensors

ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
DTYPES = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.int16, torch.int32,
    torch.int64, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2,
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file({"b": torch.arange(6.0).reshape(2, 3), "empty": torch.empty(0, 4)}, tmp_path / ONE)
    save_file({"a": torch.ones(4, dtype=torch.bfloat16), "scalar": torch.tensor(1.0)}, tmp_path / TWO)
    weight_map = {"a": TWO, "scalar": TWO, "b": ONE, "empty": ONE}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return tmp_path


def test_a_tensors_bytes_are_where_its_header_says(folder: Path) -> None:
    found = {tensor.name: tensor for tensor in stored_tensors(folder)}
    assert list(found) == ["a", "b", "empty", "scalar"]
    b = found["b"]
    assert (b.dtype, b.shape, b.file) == ("F32", (2, 3), folder / ONE)
    content = b.file.read_bytes()[b.start : b.end]
    assert torch.frombuffer(bytearray(content), dtype=torch.float32).tolist() == [0, 1, 2, 3, 4, 5]


def test_every_type_that_is_written_is_read(tmp_path: Path) -> None:
    tensors = {str(dtype): torch.zeros(3, dtype=torch.float32).to(dtype) for dtype in DTYPES}
    save_file(tensors, tmp_path / "model.safetensors")
    assert {tensor.name for tensor in stored_tensors(tmp_path)} == set(tensors)


def _header(path: Path, change: Callable[[dict], object]) -> None:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def _set(name: str, key: str, value: object) -> Callable[[Path], None]:
    return lambda folder: _header(folder / ONE, lambda header: header[name].__setitem__(key, value))


PATHS = [
    "../other/model.safetensors", "/etc/passwd", "sub/model.safetensors", "", "..", f"./{ONE}", "a.bin",
    "a\\b.safetensors", "x" * 5000,
]  # fmt: skip
DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: (folder / TWO).unlink(), f"{TWO} is missing, but {INDEX} names it"),
    (lambda folder: (folder / TWO).write_bytes(b""), f"{TWO}: truncated, or not a safetensors file"),
    (lambda folder: (folder / TWO).write_bytes(b"\0" * 500), f"{TWO}: truncated, or not a safetensors file"),
    (
        lambda folder: (folder / TWO).write_bytes(b"version https://git-lfs.github.com/spec/v1"),
        f"{TWO}: it is a pointer of git LFS",
    ),
    (lambda folder: (folder / TWO).write_bytes((folder / TWO).read_bytes()[:-1]), f"{TWO}: truncated ("),
    (lambda folder: (folder / TWO).write_bytes((folder / TWO).read_bytes()[:40]), f"{TWO}: truncated"),
    (lambda folder: (folder / TWO).write_bytes((folder / TWO).read_bytes() + b"\0"), f"{TWO}: longer than its header"),
    (lambda folder: (folder / TWO).write_bytes(struct.pack("<Q", 4) + b"nope"), f"{TWO}: its header is damaged"),
    (lambda folder: (folder / TWO).write_bytes(struct.pack("<Q", 4) + b"[1 ]"), f"{TWO}: its header is damaged"),
    (lambda folder: (folder / INDEX).write_bytes(b""), f"{INDEX}: no readable weight_map"),
    (
        lambda folder: (folder / INDEX).write_text('{"weight_map": {}, "weight_map": {}}'),
        f"{INDEX}: no readable weight_map",
    ),
    (lambda folder: (folder / INDEX).write_text("[]"), f"{INDEX}: no readable weight_map"),
    (lambda folder: (folder / INDEX).write_text('{"weight_map": [1]}'), f"{INDEX}: no readable weight_map"),
    (lambda folder: (folder / INDEX).write_text(f'{{"weight_map": {{"c": "{ONE}"}}}}'), f"{ONE}: no tensor c"),
    (
        lambda folder: save_file({"x": torch.ones(1)}, folder / "consolidated.safetensors"),
        f"consolidated.safetensors: {INDEX} names no tensor of it",
    ),
    (_set("b", "dtype", "F99"), f"{ONE}: the header of tensor b is damaged"),
    (_set("b", "shape", [2, -3]), f"{ONE}: the header of tensor b is damaged"),
    (_set("b", "shape", [2, 4]), f"{ONE}: the header of tensor b is damaged"),
    (_set("b", "shape", "23"), f"{ONE}: the header of tensor b is damaged"),
    (_set("b", "shape", [10**15, "xy"]), f"{ONE}: the header of tensor b is damaged"),
    (_set("b", "shape", [10**15, [1]]), f"{ONE}: the header of tensor b is damaged"),
    (_set("b", "data_offsets", [0]), f"{ONE}: the header of tensor b is damaged"),
    (_set("b", "data_offsets", [24, 48]), f"{ONE}: tensor"),
    (lambda folder: _move(folder, "b", 1), f"{ONE}: tensor b leaves a hole behind the header"),
    (lambda folder: _move(folder, "b", 2**64 - 48), f"{ONE}: tensor"),
    (lambda folder: _write(folder / ONE, "", {}), f"{ONE}: no tensors in it"),
    (lambda folder: _write(folder / ONE, "", {"__metadata__": {"format": "pt"}}), f"{ONE}: no tensors in it"),
    (
        lambda folder: _write(folder / ONE, "\0" * 24, {"b": _entry([2, 3], 0), "c": _entry([1], 20)}),
        f"{ONE}: tensor c overlaps with tensor b",
    ),
    (
        lambda folder: _write(folder / ONE, "\0" * 24, {"b": _entry([2, 3], 0), "c": _entry([2, 3], 0)}),
        f"{ONE}: tensor c overlaps with tensor b",
    ),
    (
        lambda folder: _write(folder / ONE, "\0" * 32, {"b": _entry([3], 0), "c": _entry([4], 16)}),
        f"{ONE}: tensor c leaves a hole behind tensor b",
    ),
    (
        lambda folder: _write(folder / ONE, "\0" * 28, {"b": _entry([6], 4)}),
        f"{ONE}: tensor b leaves a hole behind the header",
    ),
    (_set("b", "shape", [2**32, 2**32, 0]), f"{ONE}: the header of tensor b is damaged"),
    (_set("empty", "shape", [2**33, 2**33, 0]), f"{ONE}: the header of tensor empty is damaged"),
    (_set("empty", "shape", [2**64, 0]), f"{ONE}: the header of tensor empty is damaged"),
    (_set("empty", "shape", [0, True]), f"{ONE}: the header of tensor empty is damaged"),
    (_set("empty", "shape", [0] * 100), f"{ONE}: the header of tensor empty is damaged"),
    (_set("empty", "shape", {"0": 1}), f"{ONE}: the header of tensor empty is damaged"),
    (_set("b", "dtype", 5), f"{ONE}: the header of tensor b is damaged"),
    (_set("b", "dtype", None), f"{ONE}: the header of tensor b is damaged"),
    (_set("b", "dtype", "f32"), f"{ONE}: the header of tensor b is damaged"),
    (_set("b", "dtype", "F64"), f"{ONE}: the header of tensor b is damaged"),
    (_set("b", "data_offsets", [24, 0]), f"{ONE}: the header of tensor b is damaged"),
    (_set("b", "data_offsets", [0.0, 24.0]), f"{ONE}: the header of tensor b is damaged"),
    (_set("b", "data_offsets", [False, 24]), f"{ONE}: the header of tensor b is damaged"),
    (_set("b", "more", 1), f"{ONE}: the header of tensor b is damaged"),
    (lambda folder: _header(folder / ONE, lambda header: header.update(c=[])), f"{ONE}: the header of tensor c is"),
    (lambda folder: _header(folder / ONE, lambda header: header.update(__metadata__=3)), f"{ONE}: the __metadata__ of"),
    (
        lambda folder: _header(folder / ONE, lambda header: header.update(__metadata__={"a": 1})),
        f"{ONE}: the __metadata__ of its header is damaged",
    ),
    (lambda folder: (folder / ONE).write_bytes(struct.pack("<Q", 2**63) + b"{}"), f"{ONE}: truncated"),
    (lambda folder: (folder / ONE).write_bytes(struct.pack("<Q", 2**64 - 1) + b"{}"), f"{ONE}: truncated"),
    (lambda folder: (folder / ONE).write_bytes(struct.pack("<Q", 0) + b"{}"), f"{ONE}: truncated"),
    (
        lambda folder: (folder / ONE).write_bytes(_twice(folder / ONE)),
        f"{ONE}: its header is damaged: the key b stands in one object twice",
    ),
    (
        lambda folder: (folder / "model-3.safetensors").write_bytes((folder / TWO).read_bytes()),
        "remove the file that does not",
    ),
    *(
        (
            lambda folder, file=file: (folder / INDEX).write_text(json.dumps({"weight_map": {"a": TWO, "b": file}})),
            f"{INDEX}: {file[:200]}",
        )
        for file in PATHS
    ),
    (lambda folder: (folder / INDEX).write_text('{"weight_map": {}}'), f"{INDEX}: its weight_map names no tensor"),
]


def _entry(shape: list[int], start: int) -> dict:
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, start + 4 * math.prod(shape)]}


def _write(path: Path, body: str, header: dict) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body.encode())


def _move(folder: Path, name: str, by: int) -> None:
    def change(header: dict) -> None:
        header[name]["data_offsets"] = [offset + by for offset in header[name]["data_offsets"]]

    _header(folder / ONE, change)


def _twice(path: Path) -> bytes:
    text = json.dumps({"b": _entry([1], 0)})
    text = f"{text[:-1]}, {text[1:]}"
    return struct.pack("<Q", len(text)) + text.encode() + b"\0" * 4


@pytest.mark.parametrize("damage", range(len(DAMAGES)))
def test_what_is_missing_or_cut_is_named(damage: int, folder: Path) -> None:
    break_it, message = DAMAGES[damage]
    break_it(folder)
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        stored_tensors(folder)
    assert "\n" not in str(caught.value)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_what_the_library_refuses_is_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """One change of a header whose tensors lie one after another: whatever safetensors says no to, so do we."""
    numbers = st.integers(0, 40) | st.sampled_from([-1, 2**31, 2**32, 2**63, 2**64 - 1, 2**64])
    header = {"a": _entry([2, 3], 0), "b": _entry([0, 7], 24), "c": _entry([2], 24), "d": _entry([], 32)}
    entry = header[data.draw(st.sampled_from(sorted(header)))]
    key = data.draw(st.sampled_from(["shape", "data_offsets", "dtype"]))
    if key == "dtype":
        entry[key] = data.draw(st.sampled_from(["F64", "BF16", "F32", "U8", "F4", "C64", "X", 3, None]))
    else:
        entry[key] = data.draw(st.lists(numbers, max_size=3))
    path = tmp_path_factory.getbasetemp() / "changed" / "model.safetensors"
    path.parent.mkdir(exist_ok=True)
    _write(path, "\0" * 36, header)
    try:
        with safe_open(path, "pt") as file:
            expected = sorted(file.keys())
    except SafetensorError:
        with pytest.raises(DataError):
            stored_tensors(path.parent)
    else:
        assert [tensor.name for tensor in stored_tensors(path.parent)] == expected
