"""Reading data: rows by number, only what is asked for, and messages that name the file and row."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from golongrl.evaluation import tables
from golongrl.evaluation.errors import EvaluationError
from golongrl.evaluation.registry import BENCHMARKS
from golongrl.evaluation.sources import DataFiles, EvalSource
from golongrl.evaluation.tables import open_table
from support.eval_data import write_eval_data, write_rows

ROWS = [{"id": str(i), "text": f'a "quoted" \\ [{i}] {{灯塔}} ' * 3, "more": [{"x": i}]} for i in range(5)]


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl", "a.json"])
def test_any_row_by_its_number(name: str, tmp_path: Path) -> None:
    write_rows(tmp_path / name, ROWS)
    table = open_table(tmp_path / name)
    assert len(table) == 5
    assert table.row(4) == ROWS[3]
    assert table.row(1) == ROWS[0]
    assert [(number, record["id"]) for number, record in table.light(("id",))] == [(i + 1, str(i)) for i in range(5)]
    for number in (0, 6):
        with pytest.raises(EvaluationError, match=f"row {number}: there is no such row, the file has 5"):
            table.row(number)


def test_a_json_file_may_hold_lines_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    lines = "\n\n".join(json.dumps(row) for row in ROWS)
    path.write_bytes(b"\xef\xbb\xbf" + lines.encode())
    assert open_table(path).row(1) == ROWS[0]
    assert len(open_table(path)) == 5
    path.write_bytes(b"\xef\xbb\xbf " + json.dumps(ROWS).encode())
    assert [record for _, record in open_table(path).light(())] == ROWS


def test_csv_cells_may_hold_lines(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.csv", [{"id": "1", "text": 'two\nlines, "quoted"'}, {"id": "2", "text": "瓦恩"}])
    assert open_table(tmp_path / "a.csv").row(1)["text"] == 'two\nlines, "quoted"'
    assert open_table(tmp_path / "a.csv").row(2)["text"] == "瓦恩"


def test_large_row_groups_are_spooled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=5)
    monkeypatch.setattr(tables, "LARGEST_ROW_GROUP", 10)
    table = open_table(path)
    assert [table.row(number) for number in (5, 1, 3, 5)] == [ROWS[4], ROWS[0], ROWS[2], ROWS[4]]


def test_light_reading_takes_only_the_columns(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", ROWS)
    assert list(open_table(tmp_path / "a.parquet").light(("id", "absent"))) == [
        (i + 1, {"id": str(i)}) for i in range(5)
    ]


BROKEN: list[tuple[str, bytes, str]] = [
    ("a.jsonl", b'{"a": 1}\n{"a": \n', r"a\.jsonl row 2: not JSON"),
    ("a.jsonl", b'{"a": 1}\n[1]\n', r"a\.jsonl row 2: expected an object, got list"),
    ("a.jsonl", b'{"a": "\xff"}\n', r"a\.jsonl row 1: not UTF-8"),
    ("a.json", b'[{"a": 1}, {"a": 2}', r"a\.json: expected one JSON array .* is the download complete"),
    ("a.json", b'[{"a": 1}, {"a" 2}]', r"a\.json row 2: not JSON"),
    ("a.parquet", b"PAR1 nothing", r"a\.parquet: not readable as parquet"),
    ("a.csv", b'a,b\n"1,2\n', r"a\.csv: not readable as csv"),
    ("a.txt", b"a", r"a\.txt: expected one of \.parquet"),
]


@pytest.mark.parametrize(("name", "content", "message"), BROKEN)
def test_damage_is_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EvaluationError, match=message):
        [record for _, record in open_table(tmp_path / name).light(("a",))]


def test_a_missing_file_says_where_it_would_be(tmp_path: Path) -> None:
    source = EvalSource("mine", "org/mine", ("*.jsonl", "*.parquet"), 3)
    with pytest.raises(EvaluationError, match=r"no file for mine: expected .*org/mine/\*\.jsonl .* or .*mine\.parquet"):
        DataFiles.find(tmp_path, (source,))
    with pytest.raises(EvaluationError, match="no such file; fetch it"):
        open_table(tmp_path / "absent.jsonl")


def test_fetched_files_are_found_by_the_first_pattern_in_name_order(tmp_path: Path) -> None:
    source = EvalSource("mine", "org/mine", ("train*.parquet", "*.jsonl"), 3)
    folder = tmp_path / "org/mine/data"
    folder.mkdir(parents=True)
    write_rows(folder / "x.jsonl", ROWS)
    assert DataFiles.find(tmp_path, (source,)).paths["mine"] == (folder / "x.jsonl",)
    for number in (1, 0):
        write_rows(folder / f"train-{number}.parquet", ROWS[number : number + 2])
    with DataFiles.find(tmp_path, (source,)) as data:
        assert [path.name for path in data.paths["mine"]] == ["train-0.parquet", "train-1.parquet"]
        assert data.rows("mine") == 4
        assert [record["id"] for record in data.all_rows("mine")] == ["0", "1", "1", "2"]


def _without(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda row: row.pop(key)


def _set(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda row: row.update({key: value})


WRONG: list[tuple[str, str, Callable[[dict[str, Any]], Any], str]] = [
    ("longbench-v2", "longbench-v2.json", _set("answer", "E"), "answer must be A, B, C or D, got 'E'"),
    ("longbench-v2", "longbench-v2.json", _set("length", "huge"), "length must be one of short, medium, long"),
    ("longbench-v2", "longbench-v2.json", _set("_id", "66f00000"), "the id '66f00000' is also that of .* row 1"),
    ("frames", "frames.jsonl", _without("Answer"), "Answer must be a text or a number, got None"),
    ("longbench-qa", "longbench-qasper.jsonl", _set("answers", []), "answers must be a list of at least one text"),
    ("docmath", "docmath-complong.json", _set("ground_truth", [1]), "ground_truth must be a number or true/false"),
    ("corpusqa-1m", "corpusqa-1m.jsonl", _set("id", "law_en_2"), "id 'law_en_2' begins with no domain"),
    ("longmemeval", "longmemeval.json", _set("question_type", "odd"), "unknown question_type 'odd'"),
    ("longmemeval", "longmemeval.json", _set("answer", None), "answer must be a text or a number"),
    ("aime25", "aime25.jsonl", _set("answer", ""), "solution must be a text or a number, got None"),
    ("bfcl-memory", "bfcl-memory.jsonl", _set("scenario", "odd"), "unknown scenario 'odd'"),
    (
        "bfcl-memory",
        "bfcl-memory.jsonl",
        _set("id", "memory_9"),
        "bfcl-memory-answers has no ground_truth for memory_9",
    ),
    ("bfcl-memory", "bfcl-memory.jsonl", _set("question", []), "question must be a list of turns"),
]


def write_with_wrong_row(folder: Path, file: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """The tiny data, with the second row of `file` changed."""
    write_eval_data(folder)
    rows = [dict(record) for _, record in open_table(folder / file).light(())]
    change(rows[1])
    write_rows(folder / file, rows)


@pytest.mark.parametrize(("name", "file", "change", "message"), WRONG)
def test_a_wrong_row_is_named(
    name: str, file: str, change: Callable[[dict[str, Any]], Any], message: str, tmp_path: Path
) -> None:
    write_with_wrong_row(tmp_path, file, change)
    benchmark = BENCHMARKS[name]
    with (
        DataFiles.find(tmp_path, benchmark.sources) as data,
        pytest.raises(EvaluationError, match=f"{file} row 2: {message}"),
    ):
        list(benchmark.problems(data))


LATE: list[tuple[str, str, Callable[[dict[str, Any]], Any], str]] = [
    ("longbench-v2", "longbench-v2.json", _without("context"), "no context"),
    ("longbench-v2", "longbench-v2.json", _set("choice_C", 3), "choice_C must be a text, got int"),
    ("frames", "frames.jsonl", _set("wiki_items", "text"), "wiki_items must be a list of articles"),
    ("corpusqa-128k", "corpusqa-128k.jsonl", _set("prompt", [{"role": "user"}]), r"prompt\[0\] must have a role"),
    ("docmath", "docmath-complong.json", _set("paragraphs", "text"), "paragraphs must be a list"),
    ("longmemeval", "longmemeval.json", _set("haystack_dates", []), "lists of the same length"),
]


@pytest.mark.parametrize(("name", "file", "change", "message"), LATE)
def test_a_wrong_prompt_is_named_when_it_is_read(
    name: str, file: str, change: Callable[[dict[str, Any]], Any], message: str, tmp_path: Path
) -> None:
    write_with_wrong_row(tmp_path, file, change)
    benchmark = BENCHMARKS[name]
    with DataFiles.find(tmp_path, benchmark.sources) as data:
        problem = next(one for one in benchmark.problems(data) if one.file.endswith(file) and one.row == 2)
        with pytest.raises(EvaluationError, match=f"{file} row 2: .*{message}"):
            benchmark.messages(problem, data)


@pytest.mark.parametrize("suffix", [".jsonl", ".json"])
def test_half_a_character_is_read_as_one_that_a_request_can_carry(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"rows{suffix}"
    row = {"question \ud83d": ["a \udcff b", {"c": "\U0001f600"}], "n": 1}
    path.write_text(json.dumps([row] if suffix == ".json" else row))
    assert open_table(path).row(1) == {"question \ufffd": ["a \ufffd b", {"c": "\U0001f600"}], "n": 1}
