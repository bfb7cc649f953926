"""A key that stands twice is refused wherever data are read, and no reader's words reach the terminal as they are."""

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from golongrl.data import keys_once
from golongrl.data.command import app
from golongrl.data.construct.models import SourceInput
from golongrl.data.construct.sources.files import UNREAD, pieces
from golongrl.data.row_files import read_records
from golongrl.data.rows import Unreadable
from golongrl.evaluation.errors import EvaluationError
from golongrl.evaluation.tables import open_table

TEXT, NUMBER = pa.array(["a"]), pa.array([1])
INNER = pa.StructArray.from_arrays([TEXT, NUMBER], names=["x", "x"])
LISTED = pa.ListArray.from_arrays(pa.array([0, 1]), INNER)
MAPPED = pa.MapArray.from_arrays(pa.array([0, 1]), TEXT, INNER)
TWICE: list[tuple[list[Any], list[str], str]] = [
    ([TEXT, TEXT], ["prompt", "prompt"], "the column prompt stands in it twice"),
    ([TEXT, NUMBER, TEXT], ["a", "b", "a"], "the column a stands in it twice"),
    ([INNER], ["outer"], "the column outer.x stands in it twice"),
    ([LISTED], ["outer"], "the column outer.*x stands in it twice"),
    ([MAPPED], ["outer"], "the column outer.*x stands in it twice"),
]


@pytest.mark.parametrize(("arrays", "names", "line"), TWICE)
def test_a_column_twice_is_refused(tmp_path: Path, arrays: list[Any], names: list[str], line: str) -> None:
    table = pa.Table.from_arrays(arrays, names=names)
    with pytest.raises(ValueError, match=line):
        keys_once.refuse_columns(table.schema)
    file = tmp_path / "rows.parquet"
    pq.write_table(table, file)
    ((_, record),) = read_records(file)
    assert isinstance(record, Unreadable)
    assert re.search(line, record.reason)
    with pytest.raises(EvaluationError, match=line):
        open_table(file)
    (piece,) = pieces(SourceInput(path=str(file), format="parquet"))
    assert piece.row["kind"] == UNREAD
    assert re.search(line, piece.row["detail"])


def test_columns_that_stand_once_are_taken(tmp_path: Path) -> None:
    once = pa.StructArray.from_arrays([TEXT, NUMBER], names=["a", "b"])
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_arrays([once, TEXT], names=["a", "b"]), file)
    assert [record for _, record in read_records(file)] == [{"a": {"a": "a", "b": 1}, "b": "a"}]


@pytest.mark.parametrize("text", ['{"a": 1, "a": 1}', '[{"b": {"a": null, "c": 0, "a": 2}}]', '{"a": 1, "\\u0061": 1}'])
def test_a_key_twice_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the key a stands in one object twice"):
        keys_once.loads(text)
    (tmp_path / "a.jsonl").write_text(text + "\n")
    ((_, record),) = read_records(tmp_path / "a.jsonl")
    assert isinstance(record, Unreadable)


@pytest.mark.parametrize(("suffix", "separator"), [("csv", ","), ("tsv", "\t")])
def test_a_header_with_a_name_twice_is_refused(suffix: str, separator: str, tmp_path: Path) -> None:
    file = tmp_path / f"a.{suffix}"
    file.write_text(f"q{separator}a{separator}q\n1{separator}2{separator}3\n")
    with pytest.raises(EvaluationError, match="the column q stands in it twice"):
        open_table(file)


# A cursor's movement, a colour, C1's introducer, a bell, a right-to-left override, and lines of its own.
HOSTILE = "\x1b[2J\x1b[31m\x9b1A\x07\u202e\r\nerror: all good"


def test_a_readers_words_do_not_reach_the_terminal(tmp_path: Path) -> None:
    parquet, jsonl = tmp_path / "a.parquet", tmp_path / "b.jsonl"
    pq.write_table(pa.Table.from_arrays([TEXT, TEXT], names=[HOSTILE, HOSTILE]), parquet)
    jsonl.write_text('{"\\u001b[2J\\u009b1A\\n": 1, "\\u001b[2J\\u009b1A\\n": 1}\n')
    for file in (parquet, jsonl):
        for command in (["check", str(file)], ["stats", str(file)]):
            done = CliRunner().invoke(app, command)
            shown = done.output + str(done.exception)
            assert done.exit_code
            assert not set(done.output) & set("\x1b\x9b\x07\r\u202e"), repr(shown)
    ((_, record),) = read_records(parquet)
    assert isinstance(record, Unreadable)
    assert record.reason.isprintable()
    with pytest.raises(EvaluationError) as caught:
        open_table(parquet)
    assert str(caught.value).isprintable()
    (piece,) = pieces(SourceInput(path=str(parquet), format="parquet"))
    assert piece.row["detail"].isprintable()
