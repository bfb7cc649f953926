"""Reading and writing dataset files, and what is said of a wrong row."""

import codecs
import gzip
import json
import os
import random
from pathlib import Path

import pytest

from golongrl.data.builders import build
from golongrl.data.check import problems
from golongrl.data.corpus import PYTHON_REFERENCE, load_corpus
from golongrl.data.errors import DataError
from golongrl.data.row_files import left_aside, read_records, read_rows, write_rows
from golongrl.data.rows import Row, Unreadable, parse_row

TASKS = ("T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8", "T9")


@pytest.fixture(scope="module")
def rows():
    corpus = load_corpus(PYTHON_REFERENCE)
    return [build(task, corpus, random.Random(task), 90, "terse") for task in TASKS]


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_rows_survive_a_file(tmp_path, rows, suffix):
    path = tmp_path / f"data{suffix}"
    assert write_rows(rows, path) == len(rows)
    assert list(read_rows(path)) == rows
    assert list(problems(path)) == [None] * len(rows)


def test_a_folder_is_its_files_in_name_order(tmp_path, rows):
    write_rows(rows[5:], tmp_path / "b.parquet")
    write_rows(rows[:5], tmp_path / "a.parquet")
    assert list(read_rows(tmp_path)) == rows


def test_the_datasets_own_shape_is_read_and_kept():
    record = {
        "data_source": "longbench_pro",
        "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
        "ability": "long document summarization",
        "reward_model": {"style": "rule", "ground_truth": {"doc_ids": ["a"], "golden_label": "", "summary": "Chinese"}},
        "extra_info": {"reward_mode": "T4.2 Query-Focused Summary", "question": "q", "index": 7, "split": "train"},
        "agent_name": "x",
    }
    row = parse_row(record, "here")
    assert row.ground_truth == {"doc_ids": ["a"], "golden_label": "", "summary": "Chinese"}
    assert row.model_dump(mode="json") == record


def _with(rows, **changes):
    return {**rows[2].model_dump(mode="json"), **changes}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"prompt": []}, "prompt: "),
        ({"prompt": [{"role": "user"}]}, "missing key prompt.0.content"),
        ({"prompt": [{"role": "robot", "content": "x"}]}, "prompt.0.role: "),
        ({"reward_model": {}}, "missing key reward_model.ground_truth"),
        ({"extra_info": {}}, "missing key extra_info.reward_mode"),
        ({"data_source": None}, "data_source: "),
    ],
)
def test_a_wrong_row_is_named_with_its_key(tmp_path, rows, changes, expected):
    path = tmp_path / "data.jsonl"
    good = rows[0].model_dump_json()
    path.write_text(f"{good}\n{json.dumps(_with(rows, **changes))}\n", "utf-8")
    with pytest.raises(DataError) as caught:
        list(read_rows(path))
    assert str(caught.value).startswith(f"{path} row 2: {expected}")
    assert [bool(problem) for problem in problems(path)] == [False, True]


def _gold(row: Row, **changes) -> Row:
    gold = row.reward_model.ground_truth.model_copy(update=changes)
    return row.model_copy(update={"reward_model": row.reward_model.model_copy(update={"ground_truth": gold})})


def test_rows_that_cannot_be_scored_are_problems(tmp_path, rows):
    path = tmp_path / "data.jsonl"
    bad = [
        _gold(rows[0], golden_label=""),
        _gold(rows[2], doc_ids=[" "]),
        _gold(rows[4], golden_label="{"),
        _gold(rows[4], golden_label="[1]"),
        rows[0].model_copy(update={"data_source": "nowhere"}),
    ]
    write_rows(bad, path)
    found = list(problems(path))
    for number, (problem, word) in enumerate(
        zip(found, ["golden_label: empty", "doc_ids: empty", "not JSON", "expected JSON", "nowhere"], strict=True), 1
    ):
        assert problem is not None
        assert problem.startswith(f"{path} row {number}: ")
        assert word in problem


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("none.jsonl", None, "no such file"),
        ("data.csv", b"a", "expected .parquet or .jsonl"),
        ("data.jsonl", b"{", "row 1: not JSON"),
        ("data.jsonl", b"[]", "row 1: expected an object, got list"),
        ("data.parquet", b"PAR1", "not readable as parquet"),
        ("data.parquet", b"", "not readable as parquet"),
        ("data.jsonl", '{"a": 1}\n{}'.encode("utf-16"), "it is UTF-16 text; write it as UTF-8"),
        ("data.jsonl", codecs.BOM_UTF16_BE + "{}".encode("utf-16-be"), "it is UTF-16 text"),
        ("data.jsonl", "{}".encode("utf-32"), "it is UTF-32 text"),
        ("data.jsonl", gzip.compress(b"{}\n{}", mtime=0), "it is gzip; unpack it"),
        ("data.jsonl", gzip.compress(b"{}\n{}", mtime=0)[:12], "it is gzip; unpack it"),
        ("data.jsonl", b"PAR1\n\n\nPAR1", "it is parquet; name it .parquet"),
        (
            "data.jsonl",
            b'{"prompt": 1, "x": {"y": 1, "y": 2}}',
            "row 1: .*the key y stands in one object twice",
        ),
        (
            "data.jsonl",
            b'{"a": ' + b"9" * 5000 + b"}",
            r"\(4300 digits\) for integer string conversion$",
        ),
        ("data.jsonl", b"\x28\xb5\x2f\xfdabc\n\n", "it is zstd; unpack it"),
        ("data.jsonl", b"\xfd7zXZ\0abc\n", "it is xz; unpack it"),
        ("data.jsonl", b"BZh91AY&SY\n", "it is bzip2; unpack it"),
        ("data.jsonl", '{"a": 1}\n{}'.encode("utf-16-le"), "it is UTF-16 text; write it as UTF-8"),
        ("data.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:a\n", "it is a pointer of git LFS"),
        ("data.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:a\n", "it is a pointer of git LFS"),
        ("data.parquet", gzip.compress(b"a", mtime=0), "it is gzip; unpack it"),
        ("data.parquet", b"PARE" + b"x" * 60 + b"PARE", "it is encrypted; write it without encryption"),
        ("data.jsonl", b"<!DOCTYPE html>\n<html>\n", "it is a web page"),
        ("data.parquet", b"<html>\n", "it is a web page"),
        ("data.jsonl", b'[\n {"a": 1},\n {"a": 2}\n]', "it is one JSON array; write one object a line"),
        ("data.jsonl", b'[{"a": 1},\n {"a": 2}\n]', "it is one JSON array; write one object a line"),
        ("data.jsonl", b'{\n "a": 1\n}', "it is JSON over several lines; write one object a line"),
        ("data.jsonl", b'{"a": NaN}', "NaN is no JSON value"),
        ("data.jsonl", b"[" * 100_000, "it nests too deeply"),
        ("data.jsonl.gz", b"", "expected .parquet or .jsonl, got .gz"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(tmp_path, name, content, expected):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=expected) as caught:
        list(read_rows(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_cannot_be_read_is_named(tmp_path, rows, monkeypatch):
    (tmp_path / "closed").mkdir()
    write_rows(rows, tmp_path / "a.jsonl")
    scan = os.scandir

    def refusing(folder):
        if Path(folder).name == "closed":
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(DataError, match=f"{tmp_path}/closed: Permission denied"):
        list(read_rows(tmp_path))


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_row_that_takes_the_memory_is_named_and_the_others_are_read(tmp_path, rows, suffix, monkeypatch):
    long = rows[0].model_copy(update={"prompt": [rows[0].prompt[0].model_copy(update={"content": "x" * 20_000})]})
    write_rows([rows[0], long, rows[1]], tmp_path / f"x{suffix}")
    monkeypatch.setattr("golongrl.data.row_files._LONGEST_ROW", 20_000)
    first, second, third = (record for _, record in read_records(tmp_path / f"x{suffix}"))
    assert [type(one) for one in (first, third)] == [dict, dict]
    assert second.kind == "too large"
    assert second.reason.endswith(" bytes; a row may have 20000")


def test_links_that_lead_round_and_folders_named_like_files_end_in_lines(tmp_path, rows):
    write_rows(rows, tmp_path / "a.jsonl")
    (tmp_path / "self").symlink_to(tmp_path)
    (tmp_path / "b.jsonl").symlink_to("b.jsonl")
    (tmp_path / "c.jsonl").mkdir()
    found = dict(read_records(tmp_path))
    broken = [where for where, record in found.items() if isinstance(record, Unreadable)]
    assert broken == [f"data {tmp_path}/b.jsonl"]
    assert len(found) == len(rows) + 1


def test_lines_that_are_not_read_are_known(tmp_path, rows):
    write_rows(rows, tmp_path / "a.parquet")
    assert left_aside(tmp_path) == left_aside(tmp_path / "a.parquet") == []
    write_rows(rows, tmp_path / "b.jsonl")
    assert left_aside(tmp_path) == [tmp_path / "b.jsonl"]
    (tmp_path / "a.parquet").unlink()
    assert left_aside(tmp_path) == []


@pytest.mark.parametrize("nested", [False, True])
def test_times_of_an_unknown_zone_are_named_with_their_column(tmp_path: Path, nested: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def written(zone: str) -> list[object]:
        times = pa.array([0], pa.timestamp("us", tz=zone))
        column = pa.StructArray.from_arrays([times], names=["when"]) if nested else times
        pq.write_table(pa.table({"a" if nested else "when": column}), tmp_path / "data.parquet")
        return [record for _, record in read_records(tmp_path / "data.parquet")]

    (found,) = written("Mars/Olympus")
    assert isinstance(found, Unreadable)
    assert "the column when has the time zone Mars/Olympus, which this machine does not know" in found.reason
    for zone in ("UTC", "Europe/Paris", "+01:00"):
        assert isinstance(written(zone)[0], dict)


def test_a_parquet_with_an_encrypted_column_says_so(tmp_path: Path) -> None:
    import base64

    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow.parquet import encryption

    class Keys(encryption.KmsClient):
        def wrap_key(self, key: bytes, master: str) -> bytes:
            return base64.b64encode(key)

    sealed = encryption.CryptoFactory(lambda _: Keys()).file_encryption_properties(
        encryption.KmsConnectionConfig(),
        encryption.EncryptionConfiguration(footer_key="f", column_keys={"c": ["a"]}, plaintext_footer=True),
    )
    table = pa.table({"a": ["x"], "b": ["y"]})
    with pq.ParquetWriter(tmp_path / "data.parquet", table.schema, encryption_properties=sealed) as writer:
        writer.write_table(table)
    ((_, found),) = read_records(tmp_path / "data.parquet")
    assert isinstance(found, Unreadable)
    assert found.reason.endswith("a part of it is encrypted; write it without encryption")
