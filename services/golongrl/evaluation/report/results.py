"""`results.json`: every figure of an evaluation, from its journals.

Invariants: a sample that was asked for and has no score stays in the denominator of `value` in strict mode, and is
counted by what became of it; a benchmark that only a judge can score has no number where nothing was judged; an
evaluation that was interrupted says that it is incomplete.
"""

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, TypeAdapter, with_config
from typing_extensions import TypedDict

from golongrl import files
from golongrl.errors import InputError, writing_to
from golongrl.evaluation import aggregate, registry
from golongrl.evaluation.benchmark import Benchmark
from golongrl.evaluation.kinds import Mode, Rule
from golongrl.evaluation.problems import EvalProblem
from golongrl.evaluation.report import paper
from golongrl.evaluation.store import claim
from golongrl.evaluation.store.journal import Key, SampleEntry, read_entries
from golongrl.json_files import read_json

FILE: Final = "results.json"
SCHEMA: Final = 1
# Bins of prompt length, in tokens.
_EDGES: Final = (4096, 8192, 16_384, 32_768, 65_536, 131_072, 262_144, 524_288, 1_048_576)
# Reasons of failures that are listed, the most frequent first.
_REASONS: Final = 12
_REASON_SHOWN: Final = 300
_LOCK: Final = ".report.lock"
# A report of the largest suite takes half a minute.
_PATIENCE_S: Final = 300.0
_LOOK_S: Final = 0.1
# Of a file that this program wrote into an evaluation's folder; a course names every problem that was asked.
_MOST_BYTES: Final = 256 << 20
_STRICT: Final = ConfigDict(strict=True)


@with_config(_STRICT)
class CourseSettings(TypedDict):
    """How the samples of a course were asked for."""

    context: int
    input_tokens: int | None
    rule: Rule
    max_tokens: int
    temperature: float
    top_p: float
    repeats: Annotated[int, Field(ge=1)]


@with_config(_STRICT)
class CourseRecord(TypedDict):
    """Which samples of a benchmark there should be."""

    benchmark: str
    mode: Mode
    model: str | None
    step: int | None
    asked: CourseSettings
    departures: list[str]
    keys: list[str]
    outside: list[str]


@with_config(ConfigDict(extra="allow"))
class _Results(TypedDict):
    schema: Literal[1]


_COURSE: Final = TypeAdapter(CourseRecord)
_RESULTS: Final = TypeAdapter(_Results)


def journal_path(out: Path, point: str, benchmark: str) -> Path:
    """Where the samples of a benchmark are."""
    return out / "points" / point / f"{benchmark}.jsonl"


def course_path(out: Path, point: str, benchmark: str) -> Path:
    """Where it stands which samples there should be, and how they were asked for."""
    return out / "points" / point / f"{benchmark}.json"


def keep_course(out: Path, point: str, record: CourseRecord) -> None:
    """Write down what was asked, so that figures can be made again without the data."""
    path = course_path(out, point, record["benchmark"])
    with writing_to(str(path)):
        files.write_text(path, json.dumps(record, ensure_ascii=False) + "\n")


def read_course(out: Path, point: str, benchmark: str) -> CourseRecord | None:
    """What was asked; None where nothing was.

    Raises:
        InputError: the file is damaged.
    """
    otherwise = "cannot be read: it is not the record of what was asked; ask again in another --out"
    return read_json(course_path(out, point, benchmark), _MOST_BYTES, _COURSE, otherwise)


def complete(out: Path, point: str, benchmark: str, problems: Sequence[EvalProblem], *, judged: bool) -> bool:
    """Whether everything that these problems ask for is in the journal (and judged, where there is a judge)."""
    course = read_course(out, point, benchmark)
    if course is None or {*course["keys"], *course["outside"]} != {problem.key for problem in problems}:
        return False
    entries = read_entries(journal_path(out, point, benchmark))
    wanted = ((key, epoch) for key in course["keys"] for epoch in range(course["asked"]["repeats"]))
    return all(key in entries and not (judged and entries[key].sample.status == "needs_judge") for key in wanted)


def samples_of(out: Path, point: str, course: CourseRecord) -> dict[Key, SampleEntry]:
    """The entries of a course: those that were asked for, and no others that the journal may hold."""
    keys, repeats = set(course["keys"]), course["asked"]["repeats"]
    entries = read_entries(journal_path(out, point, course["benchmark"]))
    return {key: entry for key, entry in entries.items() if key[0] in keys and key[1] < repeats}


def write(out: Path) -> Path:
    """Write results.json and report.html of an evaluation, finished or not; returns the page.

    Raises:
        InputError: there is no evaluation in this folder, or a file of it is damaged.
    """
    # Whoever writes last has looked last: a report that began before a run ended must not replace the run's own.
    with _alone(out):
        found = collect(out)
        files.sweep_staged(out)  # what a report that was killed left
        with writing_to(str(out)):
            files.write_text(out / FILE, json.dumps(found, ensure_ascii=False, indent=1) + "\n")
        return _write_page(out, found)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    claim.read(out)  # no lock in a folder that is of no evaluation
    began = time.monotonic()
    while True:
        try:
            with writing_to(str(out)):
                held = files.lock(out / _LOCK)
            break
        except files.LockHeldError as error:
            if time.monotonic() - began > _PATIENCE_S:
                raise InputError(
                    f"{out}: another command ({error}) has been writing its report for {_PATIENCE_S:g} s; "
                    "if it hangs, end it and run `golongrl eval report` again"
                ) from error
            time.sleep(_LOOK_S)
    with held:
        try:
            yield
        finally:
            (out / _LOCK).unlink(missing_ok=True)


def _write_page(out: Path, found: Mapping[str, Any]) -> Path:
    # Plotly takes a second to import, and is of another extra.
    from golongrl.evaluation.report import page

    worst: list[dict[str, Any]] = []
    for point in found["points"][-1:]:
        for name in point["benchmarks"]:
            course = read_course(out, point["name"], name)
            assert course is not None
            entries = samples_of(out, point["name"], course).values()
            worst += page.texts_of(journal_path(out, point["name"], name), name, entries)
    with writing_to(str(out)):
        files.write_text(out / page.FILE, page.render(found, worst))
    return out / page.FILE


def read(out: Path) -> dict[str, Any]:
    """The results of an evaluation.

    Raises:
        InputError: there are none.
    """
    found = read_json(out / FILE, _MOST_BYTES, _RESULTS, "not results of this version")
    if found is None:
        raise InputError(f"{out}: no results (it has no {FILE}); make them with `golongrl eval report`")
    return dict(found)


def collect(out: Path) -> dict[str, Any]:
    """All figures of an evaluation."""
    record = claim.read(out)
    judge = record.get("judge") or {}
    points = []
    for folder in sorted((out / "points").glob("*"), key=_point_order):
        found = {}
        for name in record["suite"]["benchmarks"]:
            course = read_course(out, folder.name, name)
            if course is not None:
                found[name] = _benchmark(out, folder.name, course, judged=bool(judge.get("place")))
        if found:
            steps = {course["step"] for course in found.values()}
            points.append({"name": folder.name, "step": steps.pop(), "benchmarks": found, **_row(found)})
    return {
        "schema": SCHEMA,
        "suite": record["suite"]["name"],
        "mode": record["suite"]["mode"],
        "version": record["version"],
        "started": record["started"],
        "target": record["identity"]["target"]["name"],
        "judge": judge.get("model") or judge.get("place"),
        "data": record["identity"]["data"],
        "points": points,
    }


def _point_order(folder: Path) -> tuple[int, str]:
    step = folder.name.rpartition("-")[2]
    return (int(step) if step.isdecimal() else -1, folder.name)


def _row(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The paper's columns of a point."""
    row = paper.ours({name: one["value"] for name, one in found.items()})
    return {"paper": dict(zip(paper.COLUMNS, row, strict=True)), "paper_average": paper.average(row)}


def _benchmark(out: Path, point: str, course: CourseRecord, *, judged: bool) -> dict[str, Any]:
    benchmark = registry.selected(course["benchmark"])[0]
    entries = list(samples_of(out, point, course).values())
    expected = len(course["keys"]) * course["asked"]["repeats"]
    table = benchmark.aggregate([entry.sample for entry in entries], course["mode"])
    why = _why_none(benchmark, entries, expected, judged=judged)
    return {
        "title": benchmark.title,
        "step": course["step"],
        "model": course["model"],
        "value": None if why else table.total.value,
        "stderr": None if why else table.total.stderr,
        "why_no_value": why,
        "expected": expected,
        "asked": len(entries),
        "outside": len(course["outside"]),
        "rows": [asdict(row) for row in table.rows],
        "figures": dict(table.figures),
        "lengths": [asdict(row) for row in by_length(entries)],
        "departures": course["departures"],
        "settings": course["asked"],
        "failures": _reasons(entries),
        "cost": _cost(entries),
        "versions": sorted({version for entry in entries for version in entry.versions}),
    }


def _why_none(benchmark: Benchmark, entries: Sequence[SampleEntry], expected: int, *, judged: bool) -> str:
    if not expected:
        return "no problem of the data belongs to it"
    if not entries:
        return "nothing was asked"
    if benchmark.needs_judge and not judged and any(entry.sample.status == "needs_judge" for entry in entries):
        return "needs a judge (--judge URL)"
    if len(entries) < expected:
        return f"incomplete: {len(entries):,} of {expected:,} samples; run the same command again"
    return ""


def by_length(entries: Iterable[SampleEntry]) -> list[aggregate.ScoreRow]:
    """The figures by prompt length, in bins of powers of two."""
    bins: dict[int, list[SampleEntry]] = {}
    for entry in entries:
        length = entry.prompt_tokens + entry.cut_tokens
        bins.setdefault(next((edge for edge in _EDGES if length <= edge), 2 * _EDGES[-1]), []).append(entry)
    return [
        aggregate.row("tokens", _bin_name(edge), [entry.sample for entry in members])
        for edge, members in sorted(bins.items())
    ]


def _bin_name(edge: int) -> str:
    size = f"{edge // 1024}K" if edge < 1 << 20 else f"{edge >> 20}M"
    return f"<= {size}" if edge <= _EDGES[-1] else "> 1M"


def _reasons(entries: Iterable[SampleEntry]) -> list[dict[str, Any]]:
    counted = Counter(
        (entry.sample.status, entry.reason[:_REASON_SHOWN])
        for entry in entries
        if entry.sample.status in ("failed", "skipped", "unjudged") and entry.reason
    )
    return [
        {"status": status, "reason": reason, "samples": number}
        for (status, reason), number in counted.most_common(_REASONS)
    ]


def _cost(entries: Sequence[SampleEntry]) -> dict[str, float]:
    return {
        "requests": sum(entry.sample.status != "skipped" for entry in entries),
        "prompt_tokens": sum(entry.prompt_tokens for entry in entries if entry.sample.status != "skipped"),
        "completion_tokens": sum(entry.completion_tokens for entry in entries),
        "cut_tokens": sum(entry.cut_tokens for entry in entries),
        "cut_prompts": sum(entry.cut_tokens > 0 for entry in entries),
        "judge_tokens": sum(entry.judge_tokens for entry in entries),
        "request_seconds": round(sum(entry.seconds for entry in entries), 1),
    }
