"""The frame of the stages: nothing is lost, nothing is made twice, and a killed run ends with the same bytes."""

import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Event
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golongrl.data.construct import schemas
from golongrl.data.construct.errors import PipelineError
from golongrl.data.construct.run import run_stage
from golongrl.data.construct.stage import (
    Done,
    Input,
    Made,
    PipelineStage,
    Row,
    StageName,
    StageShard,
    Verdict,
    plan,
    refused,
)
from golongrl.data.construct.table import Lookup, StageManifest, StageTable, rows_at
from golongrl.data.construct.workers import Here, Processes
from golongrl.errors import InputError
from support.lengths import lengths

SCHEMA = schemas.table(("word", pa.string()), ("n", pa.int64()))


class Words(PipelineStage):
    """`n` rows of each word; none, and it is refused; words that occur twice are refused by a look at all."""

    name: ClassVar[StageName] = "select"
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = SCHEMA
    shard_rows: ClassVar[int] = 3

    def __init__(self, words: Sequence[tuple[str, int]], *, ends_after: int | None = None, mark: str = "") -> None:
        self.words, self.ends_after, self.mark = words, ends_after, mark
        self.made: list[str] = []

    def settings(self) -> Mapping[str, object]:
        return {"mark": self.mark}

    def inputs(self) -> Iterator[Input]:
        for word, n in self.words:
            yield Input(f"{word} {n}", {"word": word, "n": n})

    def run(self, shards: Sequence[StageShard], done: Done) -> None:
        for shard in shards:
            if self.ends_after == 0:
                raise KeyboardInterrupt
            self.ends_after = None if self.ends_after is None else self.ends_after - 1
            self.made += [str(one.row["word"]) for one in shard.inputs]
            done(shard, [self.rows(one.row) for one in shard.inputs])

    def rows(self, row: Row) -> Made:
        if not row["n"]:
            return [refused("none", word=row["word"])]
        return [{"word": row["word"] + self.mark, "n": n} for n in range(row["n"])]

    def settle(self, rows: Callable[[Sequence[str]], Iterator[tuple[int, Row]]]) -> Iterator[Verdict]:
        seen = set()
        for number, row in rows(["word", "n"]):
            if (row["word"], row["n"]) in seen:
                yield Verdict(number, "repeated", "seen before")
            seen.add((row["word"], row["n"]))


words = st.lists(st.tuples(st.text("ab", min_size=1, max_size=2), st.integers(0, 3)), max_size=12)


def content(table: StageTable) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in table.folder.iterdir()}


@settings(max_examples=30)
@given(words, words)
def test_a_manifest_adds_up_and_no_input_is_lost(tmp_path_factory, some, others):
    table = StageTable(tmp_path_factory.mktemp("stage"), SCHEMA)
    for given_words in (some, others):
        manifest = run_stage(Words(given_words), table, lambda _: None)
        rows = list(table.rows(kept=False))
        assert manifest.rows_in == len(given_words)
        assert manifest.rows == len(rows) == sum(max(1, n) for _, n in given_words)
        assert manifest.kept == len(list(table.rows()))
        assert manifest.kept + sum(manifest.refused.values()) == manifest.rows
        assert {row["word"] for row in rows} == {word for word, _ in given_words}


@settings(max_examples=30)
@given(words, st.integers(0, 4))
def test_a_run_that_ended_early_ends_with_the_same_bytes(tmp_path_factory, some, ends_after):
    whole = StageTable(tmp_path_factory.mktemp("whole"), SCHEMA)
    run_stage(Words(some), whole, lambda _: None)
    parts = StageTable(tmp_path_factory.mktemp("parts"), SCHEMA)
    first, second = Words(some, ends_after=ends_after), Words(some)
    try:
        run_stage(first, parts, lambda _: None)
    except KeyboardInterrupt:
        (parts.folder / ".5a.tmp.parquet").write_bytes(b"half")
    run_stage(second, parts, lambda _: None)
    assert content(parts) == content(whole)
    assert first.made + second.made == [word for word, _ in some]


def test_a_rerun_makes_only_what_is_new(tmp_path):
    table = StageTable(tmp_path / "stage", SCHEMA)
    run_stage(Words([("a", 1), ("b", 2), ("c", 0), ("d", 1)]), table, lambda _: None)
    again = Words([("new", 1), ("a", 1), ("b", 2), ("d", 1)])
    run_stage(again, table, lambda _: None)
    assert again.made == ["new"]
    assert [(row["word"], row["n"]) for row in table.rows()] == [("new", 0), ("a", 0), ("b", 0), ("b", 1), ("d", 0)]
    assert len(list(table.folder.glob("[0-9]*.parquet"))) == 2


@pytest.mark.parametrize("change", [{"mark": "!"}, {"version": 2}])
def test_other_settings_and_another_version_make_all_rows_again(tmp_path, change):
    table = StageTable(tmp_path / "stage", SCHEMA)
    run_stage(Words([("a", 1)]), table, lambda _: None)
    stage = type("Changed", (Words,), {"version": change.get("version", 1)})([("a", 1)], mark=change.get("mark", ""))
    run_stage(stage, table, lambda _: None)
    assert stage.made == ["a"]


def test_an_id_is_the_content_and_a_key_the_work(tmp_path):
    table = StageTable(tmp_path / "stage", SCHEMA)
    run_stage(Words([("a", 2)]), table, lambda _: None)
    first = list(table.rows())
    run_stage(Words([("b", 1), ("a", 2)]), table, lambda _: None)
    second = [row for row in table.rows() if row["word"] == "a"]
    assert [row["id"] for row in first] == [row["id"] for row in second]
    assert len({row["id"] for row in first}) == 2
    assert len({row["key"] for row in first}) == 1


def test_a_row_is_found_by_its_column_unless_it_was_refused(tmp_path):
    table = StageTable(tmp_path / "stage", SCHEMA)
    run_stage(Words([(f"w{i}", i % 2) for i in range(40)] + [("w1", 1)]), table, lambda _: None)
    found = Lookup.of(table.folder, "word")
    assert found.get("w39")["word"] == "w39"
    with pytest.raises(KeyError):
        found.get("w38")


def test_a_damaged_shard_is_named(tmp_path):
    table = StageTable(tmp_path / "stage", SCHEMA)
    run_stage(Words([("a", 1)]), table, lambda _: None)
    (shard,) = table.shards()
    shard.write_bytes(b"no parquet")
    with pytest.raises(PipelineError, match=shard.name):
        list(table.rows())


@pytest.mark.parametrize(
    "change",
    [
        "5", "[]", "{}", "", "[" * 100_000, {"rows": -1}, {"kept": []}, {"refused": 0}, {"refused": {"a": "b"}},
        {"shards": [7]}, {"shards": 7}, {"shards": ["../../other.parquet"]}, {"digest": None}, {"stage": "\ud800"},
    ],
)  # fmt: skip
def test_a_damaged_manifest_is_named(tmp_path, change):
    table = StageTable(tmp_path / "stage", SCHEMA)
    run_stage(Words([("a", 1)]), table, lambda _: None)
    path = table.folder / "manifest.json"
    path.write_text(change if isinstance(change, str) else json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(PipelineError, match=r"manifest\.json: not a stage's manifest; delete the file"):
        run_stage(Words([("a", 1)]), table, lambda _: None)


@pytest.mark.parametrize("what", ["manifest.json", "00000-*.parquet", "verdicts-*.parquet"])
def test_a_pipe_in_the_place_of_a_file_is_refused(tmp_path, what):
    table = StageTable(tmp_path / "stage", SCHEMA)
    run_stage(Words([("a", 1), ("a", 1)]), table, lambda _: None)
    (path,) = table.folder.glob(what)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InputError, match=rf"{path.name}: is a pipe, not a file"):
        list(table.rows())


@pytest.mark.parametrize("what", ["manifest.json", "00000-*.parquet", "verdicts-*.parquet"])
def test_a_file_that_is_gone_is_made_again(tmp_path, what):
    """Without what the look at all rows had refused, repeated rows came back without a word."""
    table = StageTable(tmp_path / "stage", SCHEMA)
    words = [("a", 1), ("b", 1), ("b", 1), ("c", 2)]
    run_stage(Words(words), table, lambda _: None)
    before = content(table)
    (path,) = table.folder.glob(what)
    path.unlink()
    if what != "manifest.json":
        with pytest.raises(PipelineError, match=rf"{path.name}: is gone; run its stage again"):
            list(table.rows())
    run_stage(Words(words), table, lambda _: None)
    assert content(table) == before
    assert [row["word"] for row in table.rows()] == ["a", "b", "c", "c"]


def test_a_full_disk_is_no_group_of_errors():
    def done(shard: StageShard, rows: Sequence[Made]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    shards = plan("select", 1, {}, [Input("a", {"word": "a"})], 2).shards
    with pytest.raises(OSError, match="No space left on device"):
        Processes(1).run(lengths, shards, done, 60.0)


def _run(words: Sequence[str], deadline_s: float = 60.0) -> list[list[tuple]]:
    inputs = [Input(word, {"word": word}) for word in words]
    got: dict[int, list] = {}
    shards = plan("select", 1, {}, inputs, 2).shards
    Processes(2).run(lengths, shards, lambda shard, made: got.__setitem__(shard.index, list(made)), deadline_s)
    return [row.get("reason") or row["n"] for index in sorted(got) for made in got[index] for row in made]


def test_processes_make_the_same_rows_as_this_process():
    words = [f"w{'x' * i}" for i in range(9)]
    shards = plan("select", 1, {}, [Input(word, {"word": word}) for word in words], 2).shards
    here: list[int] = []
    Here().run(lengths, shards, lambda _, made: here.extend(rows[0]["n"] for rows in made), 60.0)
    assert _run(words) == here == [len(word) for word in words]


def test_only_the_row_at_fault_is_refused():
    assert _run(["a", "crash", "bb", "ccc"]) == [1, "killed its process", 2, 3]
    assert _run(["hang"], deadline_s=0.3) == ["over the deadline"]


def test_a_refused_row_has_the_columns_that_name_it():
    inputs = [Input(word, {"word": word, "place": {"path": "x"}}) for word in ("a", "crash", "bb")]
    shard = plan("select", 1, {}, inputs, 8).shards[0]
    rows: list[dict] = []
    Processes(2).run(lengths, [shard], lambda _, made: rows.extend(row for one in made for row in one), 60.0)
    assert [(row["word"], row.get("reason")) for row in rows] == [
        ("a", None),
        ("crash", "killed its process"),
        ("bb", None),
    ]


def test_a_long_stage_says_how_far_it_is(tmp_path):
    heard = Event()

    class Slow(Words):
        def run(self, shards: Sequence[StageShard], done: Done) -> None:
            super().run(shards[:1], done)
            assert heard.wait(60)
            super().run(shards[1:], done)

    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if "3 of 5" in line:
            heard.set()

    run_stage(Slow([(f"w{i}", 1) for i in range(5)]), StageTable(tmp_path / "stage", SCHEMA), say, tell_s=0.01)
    assert "select: 3 of 5 inputs" in said
    assert "select: 5 in, 5 kept" in said


def test_an_error_for_a_person_ends_the_stage_in_its_one_line():
    with pytest.raises(PipelineError, match=r"^words\.txt: damaged; write it again$"):
        _run(["a", "damaged"])


def test_a_function_that_raises_ends_the_stage():
    with pytest.raises(PipelineError, match="ZeroDivisionError"):
        _run(["a", "defect"])


def test_a_shard_with_damaged_text_is_one_line_whoever_reads_it(tmp_path):
    bad = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"], pa.binary()).buffers())
    row = {"id": ["a"], "key": ["k"], "reason": pa.nulls(1, pa.string()), "detail": bad}
    path = tmp_path / "00000-a.parquet"
    pq.write_table(pa.table(row), path)
    table = StageTable(tmp_path, pa.schema([]))
    table.write_verdicts("d", [])
    table.write_manifest(StageManifest("sources", 1, {}, "d", 1, 1, 1, {}, [path.name]))
    for read in (lambda: list(table.rows()), lambda: rows_at(path, [0]), lambda: Lookup(tmp_path, "id").get("a")):
        with pytest.raises(PipelineError, match=r"a\.parquet: .* can't decode byte .*; delete the file"):
            read()
