"""A whole construction without a model: nine task types, two languages, what was planted is found, and reruns."""

import json
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from pydoc_data.topics import topics

import pyarrow.parquet as pq
import pytest

from golongrl.data.check import problems
from golongrl.data.construct import run
from golongrl.data.construct.diagnosis.diff import compare, read, settings
from golongrl.data.construct.errors import PipelineError
from golongrl.data.construct.load import load
from golongrl.data.construct.models import Pipeline
from golongrl.data.construct.run import construct
from golongrl.data.construct.stage import StageName
from golongrl.data.construct.tables import ORDER, Tables
from golongrl.data.construct.workers import Here
from golongrl.data.errors import DataError
from golongrl.data.overlap import tokens
from golongrl.data.row_files import read_rows
from support.construction import pipeline, write_documents

QUESTION = "In which year did the committee of the northern harbour towns first agree on a common tariff for grain?"
SHORT = "Who kept the keys of the old granary?"
CHINESE = "北方港口城镇的委员会在哪一年第一次就粮食的共同税率达成一致意见"
TRADITIONAL = "北方港口城鎮的委員會在哪一年第一次就糧食的共同稅率達成一致意見"
BOOK = topics["bltin-types"] if "bltin-types" in topics else topics["types"]


def row(question: str, *, context: str = "", answer: str = "the third spring after the flood") -> dict:
    """A row of a public set, in the dataset's own format."""
    text = context or "The chronicle tells of floods and harvests, of the third spring after the flood, and of ships."
    return {
        "data_source": "EM",
        "prompt": [{"role": "user", "content": f"{text}\n\n{question}"}],
        "ability": "",
        "reward_model": {"ground_truth": {"golden_label": answer, "doc_ids": [], "summary": "English"}},
        "extra_info": {"reward_mode": "EM", "question": question},
    }


# What is planted, by what becomes of it.
PLANTED = {
    "case": row(f"PLEASE ANSWER: {QUESTION.upper()}"),
    "comma": row(QUESTION.replace(" first ", ", first, ")),
    "short and whole": row("Who kept the keys, of the OLD granary?!"),
    "chinese": row(f"请回答：{CHINESE[:9]}，{CHINESE[9:]}？"),
    "in the gold": row("What was asked?", answer=QUESTION),
    "spelt out": row(" ".join(QUESTION.replace(" ", ""))),
    "underscores": row(QUESTION.replace(" ", "_")),
    "traditional": row(f"請回答：{TRADITIONAL}"),
    "twelve words": row(" ".join(QUESTION.split()[:12])),
    "in the context": row("Which spring was it?", context=f"{QUESTION} It was the third spring after the flood."),
    "clean": row("Which spring does the chronicle tell of?"),
}
REMOVED = ("case", "comma", "short and whole", "chinese", "in the gold", "spelt out", "underscores", "traditional")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(pipeline, folder, lines printed) of a construction with planted rows and a planted book."""
    root = tmp_path_factory.mktemp("construction")
    documents = write_documents(root / "documents")
    chapter = "\n\n".join(BOOK.split("\n\n")[4:40])
    (documents / "reference" / "book.txt").write_text("A chapter of its own comes first.\n\n" + chapter, "utf-8")
    benchmark = root / "benchmark"
    benchmark.mkdir()
    items = [
        {"question": QUESTION, "choices": ["in the third spring", "never"], "answer": "A", "context": BOOK},
        {"question": SHORT, "answer": "Nobody knows.", "context": "A short one."},
        {"question": CHINESE, "answer": "不详"},
    ]
    (benchmark / "harbour.jsonl").write_text("\n".join(json.dumps(item) for item in items), "utf-8")
    planted = root / "planted.jsonl"
    planted.write_text("\n".join(json.dumps(one) for one in PLANTED.values()), "utf-8")
    chosen = pipeline(
        documents,
        convert={"inputs": [{"path": str(planted), "reader": "golongrl", "name": "planted"}]},
        decontaminate={"benchmarks": [str(benchmark)]},
    )
    lines: list[str] = []
    construct(chosen, root / "out", Here(), lines.append)
    return chosen, root / "out", lines


def verdicts(out: Path, chosen: Pipeline) -> dict[str, dict]:
    """What became of each planted row."""
    tables = Tables(out, chosen)
    generators = {one["id"]: one["generator"] for one in tables.table("convert").rows()}
    samples = {one["id"]: one["sample_id"] for one in tables.table("format").rows(kept=False)}
    found = {}
    for verdict in tables.table("decontaminate").rows(kept=False):
        generator = generators.get(samples[verdict["row_id"]])
        if generator is not None:
            number = int(generator.rpartition(" ")[2])
            found[list(PLANTED)[number - 1]] = verdict
    return found


def test_all_nine_types_come_out_in_both_languages(made):
    _, out, _ = made
    rows = pq.read_table(out / "train.parquet").to_pylist()
    kinds = Counter((one["extra_info"]["task"], one["extra_info"]["lang"]) for one in rows)
    tasks = {task for task, _ in kinds}
    assert tasks == {f"T{number}" for number in range(1, 10)}
    assert {language for _, language in kinds} == {"English", "Chinese"}
    assert len(rows) >= 20


def test_the_file_passes_the_strict_check_of_the_trainer(made):
    _, out, _ = made
    assert [problem for problem in problems(out / "train.parquet", "strict") if problem] == []
    assert sum(1 for _ in read_rows(out / "train.parquet")) > 0


@pytest.mark.parametrize(
    ("licence", "said"),
    [("null", "1 licence unknown (none is stated; give `licence`)"), ("MIT", "1 too short")],
)
def test_a_construction_without_a_row_ends_with_the_stage_that_left_them_out(tmp_path, licence, said):
    text = tmp_path / "one.txt"
    text.write_text("word " * 9, "utf-8")
    chosen = load("laptop", [f"sources.inputs=[{{path: {text}, licence: {licence}}}]"])
    with pytest.raises(PipelineError, match=re.escape(f"out: no rows to train on: sources: 1 in, 0 kept; {said}")):
        construct(chosen, tmp_path / "out", Here(), lambda _: None)


def test_every_manifest_adds_up_and_takes_what_the_one_before_kept(made):
    chosen, out, _ = made
    tables = Tables(out, chosen)
    manifests = {name: tables.table(name).needed() for name in ORDER if tables.has(name)}
    assert all(manifest.balanced for manifest in manifests.values())
    assert manifests["select"].rows_in == manifests["sources"].kept
    assert manifests["generate"].rows_in == manifests["select"].kept
    assert manifests["format"].rows_in == manifests["generate"].kept + manifests["convert"].kept
    assert manifests["decontaminate"].rows_in == manifests["format"].kept
    assert manifests["diagnose"].rows_in == manifests["decontaminate"].kept
    assert pq.read_metadata(out / "train.parquet").num_rows == manifests["decontaminate"].kept


def test_planted_questions_are_removed_however_they_are_disguised(made):
    chosen, out, _ = made
    found = verdicts(out, chosen)
    assert {name for name, verdict in found.items() if verdict["reason"]} == set(REMOVED)
    assert all(found[name]["benchmark"] == "harbour" for name in REMOVED)
    assert found["in the gold"]["field"] == "gold"
    assert found["case"]["item"] == "harbour.jsonl row 1, question"
    assert found["short and whole"]["item"] == "harbour.jsonl row 2, question"
    evidence = found["comma"]["evidence"].split()
    assert len(evidence) == 13
    assert " ".join(evidence) in " ".join(tokens(QUESTION))


def test_a_hit_in_the_context_is_reported_and_removes_nothing(made):
    chosen, out, _ = made
    found = verdicts(out, chosen)
    assert found["in the context"]["context_hits"] > 0
    assert "harbour" in found["in the context"]["context_evidence"]
    assert found["clean"]["context_hits"] == found["twelve words"]["context_hits"] == 0
    report = json.loads((out / "decontamination.json").read_text("utf-8"))
    assert report["removed"] == len(REMOVED)
    assert report["removed_by_benchmark"] == {"harbour": len(REMOVED)}
    assert report["rows_with_hits_in_the_context"] >= 1


def test_a_chapter_of_a_benchmarks_book_is_no_source(made):
    chosen, out, _ = made
    rows = {one["origin"]: one for one in Tables(out, chosen).table("sources").rows(kept=False)}
    assert rows["book.txt"]["reason"] == "benchmark document"
    assert "harbour" in rows["book.txt"]["detail"]
    assert rows["try.txt"]["reason"] is None


def test_the_report_counts_what_was_made(made):
    _, out, lines = made
    found = json.loads((out / "report.json").read_text("utf-8"))
    assert found["rows"] == pq.read_metadata(out / "train.parquet").num_rows
    assert sum(cell["rows"] for cell in found["cells"]) == found["rows"]
    stages = [stage["stage"] for stage in found["stages"]]
    assert stages == ["sources", "select", "generate", "convert", "format", "decontaminate"]
    assert any(sum(counts) for counts in found["evidence_position"].values())
    page = (out / "report.html").read_text("utf-8")
    assert "Where the evidence stands" in page
    # No pass rate was measured, so there is no picture of bands.
    assert "difficulty band" not in page
    assert "#fff" not in page.partition("<body>")[0].replace("--card:#fff", "")  # it would stay white in the dark
    assert any(line.startswith("sources: ") for line in lines)


def test_a_rerun_changes_no_byte_and_makes_nothing(made):
    chosen, out, _ = made
    before = content(out)
    lines: list[str] = []
    construct(chosen, out, Here(), lines.append)
    assert content(out) == before
    assert sum("(unchanged)" in line for line in lines) == 7


def test_a_dry_run_writes_nothing(made, tmp_path):
    chosen, out, _ = made
    lines: list[str] = []
    construct(chosen, out, Here(), lines.append, dry_run=True)
    assert all("0 to do" in line for line in lines if not line.startswith("  "))
    lines.clear()
    construct(chosen, tmp_path / "new", Here(), lines.append, dry_run=True)
    assert not (tmp_path / "new").exists()
    assert any(line.startswith("sources: 11 inputs, 11 to do") for line in lines)
    assert any("the stage before has not ended" in line for line in lines)


def test_a_stage_alone_needs_those_before_it_with_the_same_settings(made, tmp_path):
    chosen, out, _ = made
    with pytest.raises(PipelineError, match="has not ended"):
        construct(chosen, tmp_path / "new", Here(), print, only="select")
    other = chosen.model_copy(update={"sources": chosen.sources.model_copy(update={"min_tokens": 201})})
    with pytest.raises(PipelineError, match="other settings of sources"):
        construct(other, out, Here(), print, only="select")
    lines: list[str] = []
    construct(chosen, out, Here(), lines.append, only="format")
    assert [line.split(":")[0] for line in lines] == ["format"]


def test_stages_that_are_started_at_once_wait_for_each_other(made, tmp_path, monkeypatch):
    """As the Jobs of a cluster are, one for each stage."""
    chosen, out, _ = made
    monkeypatch.setattr(run, "_LOOK_S", 0.05)
    names = [name for name in reversed(ORDER) if Tables(out, chosen).has(name)]
    lines: list[str] = []

    def work(name: StageName) -> None:
        construct(chosen, tmp_path / "out", Here(), lines.append, only=name, wait_s=200)

    with ThreadPoolExecutor(len(names)) as threads:
        for done in [threads.submit(work, name) for name in names]:
            done.result()
    assert "waiting for the stage sources" in lines
    assert content(tmp_path / "out") == content(out)


def test_a_wait_ends_with_what_was_waited_for(made, tmp_path, monkeypatch):
    chosen, out, _ = made
    monkeypatch.setattr(run, "_LOOK_S", 0.01)
    with pytest.raises(PipelineError, match="waited for the stage sources, which has not ended"):
        construct(chosen, tmp_path / "new", Here(), print, only="select", wait_s=0.05)
    with pytest.raises(PipelineError, match="another process"):
        construct(chosen, out, Here(), lambda _: construct(chosen, out, Here(), print, only="sources", wait_s=0.05))


def content(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_a_foreign_folder_and_a_folder_in_use_are_refused(made, tmp_path):
    chosen, out, _ = made
    (tmp_path / "thesis.tex").write_text("mine", "utf-8")
    with pytest.raises(PipelineError, match=r"thesis\.tex"):
        construct(chosen, tmp_path, Here(), print)
    with pytest.raises(PipelineError, match="another process"):
        construct(chosen, out, Here(), lambda _: construct(chosen, out, Here(), print))


@pytest.mark.parametrize("there", ["nothing", "empty", "lock", "killed"])
def test_a_refused_stage_leaves_what_was_there(made, tmp_path, there):
    chosen, _, _ = made
    out = tmp_path / "deep" / "out"
    if there != "nothing":
        out.mkdir(parents=True)
    if there == "lock":
        (out / ".lock").write_text("12", "utf-8")
    if there == "killed":
        (out / ".0123456789ab.tmp.yaml").write_text("name:", "utf-8")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(PipelineError, match="has not ended"):
        construct(chosen, out, Here(), print, only="select")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_refused_stage_does_not_change_the_settings_that_are_kept(made, tmp_path):
    chosen, out, _ = made
    before = content(out)
    other = chosen.model_copy(update={"seed": chosen.seed + 1})
    with pytest.raises(PipelineError, match="made with other settings of select"):
        construct(other, out, Here(), print, only="decontaminate")
    assert content(out) == before


def test_diff_names_rows_and_settings_that_differ(made, tmp_path):
    _, out, _ = made
    same = {what: (a, b) for what, a, b in compare(read(out), read(out / "train.parquet"))}
    assert same["rows that only this one has"] == ("0", "0")
    fewer = tmp_path / "fewer.parquet"
    table = pq.read_table(out / "train.parquet")
    pq.write_table(table.slice(0, table.num_rows - 3), fewer)
    found = {what: (a, b) for what, a, b in compare(read(out), read(fewer))}
    assert found["rows"] == (str(table.num_rows), str(table.num_rows - 3))
    assert found["rows that only this one has"] == ("3", "0")
    assert list(settings(out, fewer)) == []
    assert list(settings(out, out)) == []
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "pipeline.yaml").write_text("name: x", "utf-8")
    with pytest.raises(PipelineError, match=r"has not made train\.parquet"):
        read(tmp_path / "begun")


@pytest.mark.parametrize(("content", "why"), [("junk\n{}\n", "; 2 cannot be read, .*data check"), ("", "")])
def test_diff_refuses_what_has_no_row(tmp_path, content, why):
    (tmp_path / "junk.jsonl").write_text(content, "utf-8")
    with pytest.raises(DataError, match=rf"data .*junk\.jsonl: no rows to compare{why}"):
        read(tmp_path / "junk.jsonl")


def test_what_was_begun_beyond_the_quota_is_left_out_with_its_reason(made, tmp_path):
    chosen, _, _ = made
    more = chosen.select.model_copy(update={"oversample": 3.0, "tasks": {"T1": 2, "T4": 2}})
    changed = chosen.model_copy(update={"select": more, "convert": None})
    construct(changed, tmp_path / "out", Here(), lambda _: None)
    rows = list(Tables(tmp_path / "out", changed).table("decontaminate").rows(kept=False))
    kinds = Counter(row["reason"] for row in rows)
    assert kinds["beyond the quota"] >= 4
    tasks = Counter(one["extra_info"]["task"] for one in pq.read_table(tmp_path / "out" / "train.parquet").to_pylist())
    assert tasks == {"T1": 2, "T4": 2}
