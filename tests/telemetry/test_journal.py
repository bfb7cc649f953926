"""Files of JSON lines that a long run appends to."""

import stat
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from golongrl.telemetry.journal import Journal, files, read


def numbers(path: Path) -> list[int]:
    return [record["step"] for record in read(path)]


def record(step: int, text: str = "") -> dict[str, Any]:
    return {"step": step, "text": text}


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    journal = Journal(path, most_bytes=100)
    for step in range(9):
        journal.append([record(step, "a prompt of somebody")])
    assert len(files(path)) == 2
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files(path))


@given(
    sizes=st.lists(st.integers(0, 60), max_size=30),
    most=st.integers(60, 400),
    upto=st.integers(-1, 30),
    torn=st.booleans(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_it_is_bounded_ordered_and_resumes_without_repeats(
    tmp_path_factory: Any, sizes: list[int], most: int, upto: int, torn: bool
) -> None:
    path = tmp_path_factory.mktemp("journal") / "samples.jsonl"
    journal = Journal(path, most_bytes=most)
    for step, size in enumerate(sizes):
        journal.append([record(step, "x" * size)])
    assert sum(file.stat().st_size for file in files(path)) <= 2 * max(most, 100)
    kept = numbers(path)
    assert kept == list(range(len(sizes)))[len(sizes) - len(kept) :]
    if torn and path.exists():
        with path.open("ab") as file:
            file.write(b'{"step": 99, "te')
    again = Journal(path, keep=lambda found: found["step"] <= upto, most_bytes=most)
    assert numbers(path) == [step for step in kept if step <= upto]
    again.append([record(upto + 1)])
    assert numbers(path)[-1] == upto + 1
    assert not list(path.parent.glob("*.tmp"))


def test_its_folder_is_made_when_there_is_something_to_write(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "timeline.jsonl"
    journal = Journal(path)
    journal.append([])
    assert list(tmp_path.iterdir()) == []
    journal.append([record(1)])
    assert numbers(path) == [1]


def test_a_line_that_a_crash_cut_is_passed_over_and_ends_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "timeline.jsonl"
    path.write_bytes(b'{"step":1}\n[1]\n\xff\n' + b"[" * 100_000 + b'\n{"step":2')
    Journal(path).append([record(3)])
    assert numbers(path) == [1, 3]


def test_text_that_utf8_cannot_carry_is_written_all_the_same(tmp_path: Path) -> None:
    Journal(tmp_path / "s.jsonl").append([record(1, "a\ud800b")])
    assert [found["text"] for found in read(tmp_path / "s.jsonl")] == ["a?b"]
