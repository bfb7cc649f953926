"""A model folder's weights, read from their headers: what is missing or cut is named before anything starts."""

import json
import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
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


DAMAGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: (folder / TWO).unlink(), f"{TWO} is missing, but {INDEX} names it"),
    (lambda folder: (folder / TWO).write_bytes(b""), f"{TWO}: truncated, or not a safetensors file"),
    (lambda folder: (folder / TWO).write_bytes(b"\0" * 500), f"{TWO}: truncated, or not a safetensors file"),
    (lambda folder: (folder / TWO).write_bytes(b"version https://git-lfs.github.com/spec/v1"), f"{TWO}: truncated"),
    (lambda folder: (folder / TWO).write_bytes((folder / TWO).read_bytes()[:-1]), f"{TWO}: truncated ("),
    (lambda folder: (folder / TWO).write_bytes((folder / TWO).read_bytes()[:40]), f"{TWO}: truncated"),
    (lambda folder: (folder / TWO).write_bytes((folder / TWO).read_bytes() + b"\0"), f"{TWO}: longer than its header"),
    (lambda folder: (folder / TWO).write_bytes(struct.pack("<Q", 4) + b"nope"), f"{TWO}: its header is damaged"),
    (lambda folder: (folder / TWO).write_bytes(struct.pack("<Q", 4) + b"[1 ]"), f"{TWO}: its header is damaged"),
    (lambda folder: (folder / INDEX).write_bytes(b""), f"{INDEX}: no readable weight_map"),
    (lambda folder: (folder / INDEX).write_text("[]"), f"{INDEX}: no readable weight_map"),
    (lambda folder: (folder / INDEX).write_text('{"weight_map": [1]}'), f"{INDEX}: no readable weight_map"),
    (lambda folder: (folder / INDEX).write_text(f'{{"weight_map": {{"c": "{ONE}"}}}}'), f"{ONE}: no tensor c"),
    (lambda folder: [(folder / INDEX).unlink(), (folder / TWO).unlink()], "1 of 2 weight files"),
    (_set("b", "dtype", "F99"), f"{ONE}: the header of tensor b is damaged"),
    (_set("b", "shape", [2, -3]), f"{ONE}: the header of tensor b is damaged"),
    (_set("b", "shape", [2, 4]), f"{ONE}: the header of tensor b is damaged"),
    (_set("b", "shape", "23"), f"{ONE}: the header of tensor b is damaged"),
    (_set("b", "shape", [10**15, "xy"]), f"{ONE}: the header of tensor b is damaged"),
    (_set("b", "shape", [10**15, [1]]), f"{ONE}: the header of tensor b is damaged"),
    (_set("b", "data_offsets", [0]), f"{ONE}: the header of tensor b is damaged"),
    (_set("b", "data_offsets", [24, 48]), f"{ONE}: truncated ("),
]


@pytest.mark.parametrize("damage", range(len(DAMAGES)))
def test_what_is_missing_or_cut_is_named(damage: int, folder: Path) -> None:
    break_it, message = DAMAGES[damage]
    break_it(folder)
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        stored_tensors(folder)
    assert "\n" not in str(caught.value)
