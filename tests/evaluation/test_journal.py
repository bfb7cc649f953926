"""The journal: whatever a kill leaves, what was whole is there, and nothing else."""

import json
import math
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl.errors import GolongrlError, InputError
from golongrl.evaluation.problems import EvalProblem
from golongrl.evaluation.replies import Reply, ScoredReply
from golongrl.evaluation.store.journal import Cost, Judged, SampleJournal, read_entries, read_record

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20) | st.just("a\n\u2028\x85\0b")


def problem(key: str) -> EvalProblem:
    return EvalProblem(key, "s", "f.jsonl", 1, ("gold",), "q", {"domain": "d"})


def write(path: Path, texts: list[str]) -> None:
    with SampleJournal(path) as journal:
        for number, text in enumerate(texts):
            scored = ScoredReply("needs_judge", None, text, 0.0)
            entry = journal.add_reply(problem(f"p{number}"), 0, Reply(text, text or None), scored, Cost(1.0, 5, 7))
            if number % 2:
                judged = [Judged("ab" * 8, (text,), 1.0)]
                journal.add_verdict(entry.key, ScoredReply("scored", 1.0, text, 0.0), "j", judged, 3)


@given(texts=st.lists(TEXTS, min_size=1, max_size=5), cut=st.floats(0, 1))
def test_a_cut_at_any_byte_loses_the_last_line_alone(tmp_path_factory, texts, cut) -> None:
    path = tmp_path_factory.mktemp("journal") / "b.jsonl"
    write(path, texts)
    content = path.read_bytes()
    kept = content[: int(cut * len(content))]
    path.write_bytes(kept)
    whole = kept[: kept.rfind(b"\n") + 1]
    before = read_entries(path)
    with SampleJournal(path) as journal:
        assert journal.entries.keys() == before.keys()
        assert path.read_bytes() == whole
        assert len(journal.entries) == sum(b'"kind":"reply"' in line for line in whole.split(b"\n"))
        for entry in journal.entries.values():
            record = read_record(path, entry)
            assert (record["key"], record["kind"]) == (entry.sample.problem, "reply")
            assert record["reply"]["text"] == texts[int(entry.sample.problem[1:])]
            assert journal.scored(entry).status == "needs_judge"
        journal.add_reply(problem("more"), 3, Reply("x"), ScoredReply("scored", 0.5, "x"), Cost())
    assert read_entries(path)["more", 3].sample.score == 0.5


def test_a_verdict_is_of_its_reply(tmp_path) -> None:
    write(tmp_path / "b.jsonl", ["one", "two"])
    entries = read_entries(tmp_path / "b.jsonl")
    assert [entry.sample.status for entry in entries.values()] == ["needs_judge", "scored"]
    second = entries["p1", 0]
    assert (second.judged, second.judge_tokens, second.prompt_tokens) == (True, 3, 5)
    assert second.sample.labels == {"domain": "d"}


def test_a_second_reply_replaces_the_first_and_its_verdict(tmp_path) -> None:
    path = tmp_path / "b.jsonl"
    write(path, ["one", "two"])
    with SampleJournal(path) as journal:
        journal.add_reply(problem("p1"), 0, Reply("new"), ScoredReply("scored", 0.25, "new"), Cost())
    entry = read_entries(path)["p1", 0]
    assert (entry.sample.score, entry.judged, entry.judge_tokens) == (0.25, False, 0)
    assert read_record(path, entry)["reply"]["text"] == "new"


REPLY = {
    "kind": "reply", "key": "p0", "epoch": 0, "where": "f.jsonl row 1", "labels": {}, "question": "q", "golds": ["g"],
    "reply": {"text": "t", "reasoning": None, "finish_reason": "stop", "error": ""}, "status": "scored", "score": 0.5,
    "answer": "t", "rule": 0.5, "flags": [], "parts": {}, "reason": "", "seconds": 1.0, "prompt_tokens": 1,
    "completion_tokens": 1, "cut_tokens": 0, "refused": False, "versions": [],
}  # fmt: skip


def damaged_lines() -> Iterator[str]:
    yield from ("garbage", "{}", '{"kind":"reply"}', "[1]", "null", '"text"')
    for key in REPLY:
        yield json.dumps({name: value for name, value in REPLY.items() if name != key})
        # No key may hold this, and few a text of half a character.
        yield json.dumps({**REPLY, key: [[None]]})
        yield json.dumps({**REPLY, key: "\ud800"})
    for key, value in (("score", 1.5), ("rule", -0.1), ("score", math.nan), ("epoch", -1), ("prompt_tokens", -1)):
        yield json.dumps({**REPLY, key: value})


@pytest.mark.parametrize("line", list(damaged_lines()))
def test_a_damaged_line_is_named_and_not_passed_over(tmp_path, line) -> None:
    path = tmp_path / "b.jsonl"
    write(path, ["one", "two"])
    first, *rest = path.read_text().splitlines(keepends=True)
    path.write_text("".join([first, line, "\n", *rest]))
    with pytest.raises(InputError, match=rf"b\.jsonl: the line at byte {len(first)} is not a record"):
        SampleJournal(path)


def test_the_sample_of_a_line_that_was_removed_is_asked_again(tmp_path) -> None:
    """As the message about a damaged line advises: the verdict on its reply is of no use then."""
    path = tmp_path / "b.jsonl"
    write(path, ["one", "two"])
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if not ('"kind":"reply"' in line and '"p1"' in line)))
    assert list(read_entries(path)) == [("p0", 0)]
    with SampleJournal(path) as journal:
        assert list(journal.entries) == [("p0", 0)]


def test_half_a_character_costs_no_line(tmp_path) -> None:
    write(tmp_path / "b.jsonl", ["\ud800 alone"])
    entry = read_entries(tmp_path / "b.jsonl")["p0", 0]
    assert read_record(tmp_path / "b.jsonl", entry)["reply"]["text"] == "? alone"


def test_a_pipe_in_its_place_is_refused(tmp_path) -> None:
    os.mkfifo(tmp_path / "b.jsonl")
    with pytest.raises(InputError, match=r"b\.jsonl: is a pipe, not a file"):
        SampleJournal(tmp_path / "b.jsonl")


def test_a_line_is_json_that_other_programs_read(tmp_path) -> None:
    write(tmp_path / "b.jsonl", ["瓦恩 \u2028"])
    (line,) = (tmp_path / "b.jsonl").read_bytes().splitlines()
    assert json.loads(line)["reply"]["text"] == "瓦恩 \u2028"


@pytest.mark.parametrize("room", [0, 1, 50, 200])
def test_a_refused_write_leaves_whole_lines_and_the_next_one_is_read(tmp_path, room) -> None:
    """As on a full disk: a part of the line is written before the storage refuses."""
    path = tmp_path / "b.jsonl"
    write(path, ["one"])
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    scored = ScoredReply("scored", 0.5, "x")
    with SampleJournal(path) as journal:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + room, limits[1]))
        try:
            with pytest.raises(GolongrlError, match=r"b\.jsonl: cannot be written: File too large"):
                journal.add_reply(problem("p1"), 0, Reply("x" * 1000), scored, Cost())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.read_bytes() == before
        assert list(journal.entries) == [("p0", 0)]
        journal.add_reply(problem("p2"), 0, Reply("y"), scored, Cost())
    entries = read_entries(path)
    assert list(entries) == [("p0", 0), ("p2", 0)]
    assert read_record(path, entries["p2", 0])["reply"]["text"] == "y"
