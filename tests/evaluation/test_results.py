"""Writing the results of an evaluation: two commands at once leave those of the one that looked last."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from golongrl.errors import InputError
from golongrl.evaluation.report import results, summary

RECORD: dict[str, Any] = {
    "version": "1", "started": "2026-01-01", "identity": {"target": {"name": "m"}, "data": {}},
    "suite": {"name": "aime24", "mode": "strict", "benchmarks": ["aime24"]},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "evaluation.json").write_text(json.dumps(RECORD))
    monkeypatch.setattr(results, "_write_page", lambda out, _: out / "report.html")
    return tmp_path


def test_a_report_that_began_before_does_not_replace_later_results(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, go_on, samples = threading.Event(), threading.Event(), ["first"]

    def collect(_: Path) -> dict[str, Any]:
        found = {"samples": list(samples)}
        if len(samples) == 1:
            looked.set()
            assert go_on.wait(60)
        return found

    monkeypatch.setattr(results, "collect", collect)
    report = threading.Thread(target=results.write, args=[folder])
    report.start()
    assert looked.wait(60)
    samples.append("second")
    run = threading.Thread(target=results.write, args=[folder])
    run.start()
    run.join(0.3)
    assert run.is_alive()
    go_on.set()
    for thread in (report, run):
        thread.join(60)
    assert json.loads((folder / results.FILE).read_text()) == {"samples": ["first", "second"]}
    assert not list(folder.glob(".*"))


def test_a_report_that_hangs_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from golongrl import files

    monkeypatch.setattr(results, "_PATIENCE_S", 0.2)
    with (
        files.lock(folder / ".report.lock"),
        pytest.raises(InputError, match=r"another command \(pid \d+\) has been writing"),
    ):
        results.write(folder)


def test_a_folder_without_an_evaluation_stays_empty(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no evaluation in this folder"):
        results.write(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change",
    [
        {"identity": 5}, {"identity": {}}, {"identity": {"target": 5, "data": {}}}, {"suite": 5}, {"suite": {}},
        {"suite": {"name": "x", "mode": "strict", "benchmarks": 5}}, {"judge": 5}, {"version": None},
    ],
)  # fmt: skip
def test_a_damaged_record_is_one_line(tmp_path: Path, change: dict[str, Any]) -> None:
    (tmp_path / "evaluation.json").write_text(json.dumps(RECORD | change))
    with pytest.raises(InputError, match=r"evaluation\.json: not the record of an evaluation"):
        results.write(tmp_path)


COURSE: dict[str, Any] = {
    "benchmark": "aime24", "mode": "strict", "model": "m", "step": None, "departures": [], "keys": ["0"], "outside": [],
    "asked": {"context": 1, "input_tokens": None, "rule": "skip", "max_tokens": 1, "temperature": 0.0, "top_p": 1.0,
              "repeats": 1},
}  # fmt: skip


def _damaged_courses() -> Iterator[str]:
    yield from ("{}", "[]", "5", "{", '{"keys": 5}', "[" * 100_000)
    for key in COURSE:
        yield json.dumps({name: value for name, value in COURSE.items() if name != key})
        yield json.dumps({**COURSE, key: [[None]]})
        yield json.dumps({**COURSE, key: "\ud800"})
    for key in COURSE["asked"]:
        yield json.dumps({**COURSE, "asked": {name: value for name, value in COURSE["asked"].items() if name != key}})
        yield json.dumps({**COURSE, "asked": {**COURSE["asked"], key: "x"}})
    yield json.dumps({**COURSE, "asked": {**COURSE["asked"], "repeats": 0}})


@pytest.mark.parametrize("content", list(_damaged_courses()))
def test_a_damaged_course_is_one_line(folder: Path, content: str) -> None:
    (folder / "points" / "p").mkdir(parents=True)
    (folder / "points" / "p" / "aime24.json").write_text(content)
    with pytest.raises(InputError, match=r"aime24\.json: cannot be read: ") as caught:
        results.write(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", [b'{"suite": "frames", "points": []}', b'{"kind":"reply","key":"0"}\n', b"\xff\n"])
def test_a_summary_replaces_no_other_file(tmp_path: Path, text: bytes) -> None:
    """Such as the results or the paid answers of an evaluation."""
    place = tmp_path / "file.json"
    place.write_bytes(text)
    with pytest.raises(InputError, match="holds something else than an evaluation's summary"):
        summary.refuse_place(place)
    assert place.read_bytes() == text


def test_a_summary_replaces_one_of_before(tmp_path: Path) -> None:
    place = tmp_path / "termination-log"
    summary.refuse_place(place)
    place.touch()
    summary.refuse_place(place)
    summary.write(summary.Summary(suite="frames", model="m", report="r", scores=()), place)
    summary.refuse_place(place)
