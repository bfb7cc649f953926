"""Quotas, criteria, feedback, and a choice of documents that is stable."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl.data.construct.errors import PipelineError
from golongrl.data.construct.models import Criterion, LengthBin, Pipeline, Select
from golongrl.data.construct.run import construct
from golongrl.data.construct.select.criteria import DEFAULTS, Candidate, preference
from golongrl.data.construct.select.feedback import failures
from golongrl.data.construct.select.pick import Picker
from golongrl.data.construct.select.quotas import Cell, TaskScore, apportion, cells, need, need_of_document, quotas
from golongrl.data.construct.tables import Tables
from golongrl.data.construct.workers import Here
from golongrl.data.prepared import PreparedRow, write_prepared
from golongrl.evaluation.problems import EvalProblem
from golongrl.evaluation.replies import Reply, ScoredReply
from golongrl.evaluation.store.journal import Cost, SampleJournal
from support.construction import pipeline, write_documents

BINS = (LengthBin(name="short", max_tokens=1000), LengthBin(name="long", min_tokens=1000, max_tokens=4000, share=2.0))


def select(**changed: object) -> Select:
    given_settings = {"tasks": {"T1": 30, "T2": 12}, "bins": BINS, "languages": {"English": 2.0, "Chinese": 1.0}}
    return Select(**(given_settings | changed))


def candidate(number: int, tokens: int = 500, **features: int) -> Candidate:
    return Candidate(f"d{number}", "English", "books", tokens, {"paragraphs": 20, **features})


WEIGHTS = st.dictionaries(st.sampled_from([Cell("T1", str(n), "English") for n in range(6)]), st.floats(0, 9))


@given(WEIGHTS, st.integers(0, 99))
def test_shares_are_whole_numbers_that_add_up(weights, total):
    shared = apportion(weights, total)
    assert set(shared) == set(weights)
    if sum(weights.values()):
        assert sum(shared.values()) == total
        for cell, weight in weights.items():
            assert abs(shared[cell] - total * weight / sum(weights.values())) < 1 + 1e-6


def test_a_quota_is_split_over_bins_and_languages_by_their_shares():
    shared = quotas(select())
    assert shared[Cell("T1", "long", "English")] == pytest.approx(30 * 4 / 9, abs=1)
    assert shared[Cell("T1", "short", "Chinese")] == pytest.approx(30 / 9, abs=1)
    assert sum(count for cell, count in shared.items() if cell.task == "T1") == 30
    assert sum(count for cell, count in shared.items() if cell.task == "T2") == 12
    begun = cells(select(oversample=1.5))
    assert all(begun[cell] >= 1.5 * count for cell, count in shared.items())


def test_feedback_moves_quotas_to_what_scored_low():
    found = (TaskScore("T1", 1.0), TaskScore("T2", 0.0, "long"), TaskScore("T2", 1.0, "short"))
    plain, moved = quotas(select()), quotas(select(), found)
    assert sum(moved.values()) == sum(plain.values()) == 42
    assert moved[Cell("T2", "long", "English")] > plain[Cell("T2", "long", "English")]
    assert moved[Cell("T1", "long", "English")] < plain[Cell("T1", "long", "English")]
    assert quotas(select(feedback_strength=0.0), found) == plain


def test_feedback_is_read_from_rows_and_from_a_runs_folder(tmp_path):
    rows = tmp_path / "eval.jsonl"
    rows.write_text('{"task": "T4", "score": 0.25, "language": "Chinese"}\n{"task": "T4", "score": null}\n', "utf-8")
    run = tmp_path / "run"
    run.mkdir()
    steps = [{"training/global_step": n, "reward_by_type/T1": n / 10, "reward_by_type/T7": 0.5} for n in range(1, 11)]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, steps)), "utf-8")
    evaluation = tmp_path / "evaluation"
    evaluation.mkdir()
    newest = {"docmath": {"value": 0.4}, "gpqa-diamond": {"value": 0.1}, "frames": {"value": None}}
    points = [{"benchmarks": {"docmath": {"value": 0.9}}}, {"benchmarks": newest}]
    (evaluation / "results.json").write_text(json.dumps({"points": points}), "utf-8")
    assert failures([str(evaluation)], BINS) == (TaskScore("T4", 0.4),)
    assert failures([str(rows), str(run)], BINS) == (
        TaskScore("T4", 0.25, None, "Chinese"),
        TaskScore("T1", pytest.approx(0.55)),
        TaskScore("T7", 0.5),
    )


INFO = {"length_bin": "long", "lang": "Chinese", "source": "filings", "doc_ids": ["d7", "d8"], "sample_id": "s"}


def written_run(run: Path, rewards: list[float | None]) -> None:
    """The folder of a run whose groups, one a step, are about the first row of its data."""
    prepared = PreparedRow(0, np.array([1], np.int32), "T1", "EM", "EM", "EM", "EM", {}, INFO, "")
    write_prepared([prepared], run / "data" / "train")
    steps = [{"training/global_step": n, "reward_by_type/T1": 0.5} for n in range(1, len(rewards) + 1)]
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, steps)), "utf-8")
    groups = [
        {"step": n, "kind": "group", "why": "worst", "uid": "3-0", "task": "T1", "reward": reward}
        for n, reward in enumerate(rewards, start=1)
    ]
    others = [{"step": 1, "kind": "batch"}, {"step": 99, "kind": "group", "uid": "0-5", "task": "T1", "reward": 0.0}]
    text = "\n".join(map(json.dumps, [*groups, *others])) + "\n"
    (run / "samples.jsonl").write_text(text.replace('"step": 99', f'"step": {len(rewards)}'), "utf-8")


def test_single_groups_of_a_run_say_length_language_source_and_documents(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    written_run(run, [0.0, None, 0.25, 0.5])
    general, *groups = failures([str(run)], BINS)
    assert general == TaskScore("T1", 0.5)
    # Unscored groups and rows that the data does not have say nothing.
    assert groups == [TaskScore("T1", score, "long", "Chinese", "filings", ("d7", "d8")) for score in (0.0, 0.25, 0.5)]
    written_run(run, [1.0] * 5 + [0.0] * 20)
    assert [one.score for one in failures([str(run)], BINS)[1:]] == [0.0] * 20  # the last steps
    plain = PreparedRow(0, np.array([1], np.int32), "T1", "EM", "EM", "EM", "EM", {}, {"reward_mode": "EM"}, "")
    write_prepared([plain], run / "data" / "train")
    assert failures([str(run)], BINS) == (TaskScore("T1", 0.5),)  # groups of prompts of which nothing is known
    shutil.rmtree(run / "data")
    assert failures([str(run)], BINS) == (TaskScore("T1", 0.5),)


def test_samples_of_an_evaluation_say_their_length_and_what_their_rows_state(tmp_path):
    benchmarks = {"frames": {"value": 0.5}, "gpqa-diamond": {"value": 0.1}}
    results = {"points": [{"name": "old", "benchmarks": {}}, {"name": "step-20", "benchmarks": benchmarks}]}
    (tmp_path / "results.json").write_text(json.dumps(results), "utf-8")
    samples = [
        ("a", ScoredReply("scored", 0.0), 2000, {"language": "zh", "source": "laws"}),
        ("b", ScoredReply("scored", 1.0), 500, {}),
        ("c", ScoredReply("scored", 1.0), 90_000, {}),
        ("d", ScoredReply("skipped", None), 500, {}),
    ]
    with SampleJournal(tmp_path / "points" / "step-20" / "frames.jsonl") as journal:
        for key, scored, tokens, labels in samples:
            problem = EvalProblem(key, "frames", "f.jsonl", 1, ("gold",), labels=labels)
            journal.add_reply(problem, 0, Reply("text"), scored, Cost(prompt_tokens=tokens))
    expected = [
        score
        for task in ("T1", "T2")
        for score in (
            TaskScore(task, 0.5),
            TaskScore(task, 0.0, "long", "Chinese", "laws"),
            TaskScore(task, 1.0, "short"),
        )
    ]
    assert list(failures([str(tmp_path)], BINS)) == expected


def test_few_prompts_move_less_than_many():
    cell = Cell("T1", "long", "English")
    general = TaskScore("T1", 0.8)
    needs = [need(cell, (general, *[TaskScore("T1", 0.0, "long")] * count), 1.0) for count in (0, 1, 4, 1000)]
    assert needs == [pytest.approx(one, abs=0.01) for one in (1.2, 1.36, 1.6, 2.0)]
    assert need(Cell("T1", "short", "English"), (general, TaskScore("T1", 0.0, "long")), 1.0) == pytest.approx(1.2)


SCORES = st.builds(
    TaskScore,
    st.sampled_from(["T1", "T2"]),
    st.floats(0, 1),
    st.sampled_from([None, "short", "long"]),
    st.sampled_from([None, "English", "Chinese"]),
    st.sampled_from([None, "books", "laws"]),
    st.sampled_from([(), ("d1",), ("d2", "d1")]),
)


@given(st.lists(SCORES, max_size=8).map(tuple), st.floats(0, 5))
def test_feedback_never_changes_the_sum_and_stays_within_its_strength(found, strength):
    settings = select(feedback_strength=strength)
    assert sum(quotas(settings, found).values()) == 42
    for cell in quotas(settings):
        assert 1 <= need(cell, found, strength) <= 1 + strength + 1e-9
    for doc_id in ("d1", "d2", "d3"):
        assert 1 <= need_of_document("T1", doc_id, "books", found, strength) <= 1 + strength + 1e-9


def test_documents_that_are_answered_badly_are_chosen_more_often(tmp_path):
    chosen = pipeline(write_documents(tmp_path / "documents"), each=12)
    construct(chosen, tmp_path / "out", Here(), lambda _: None, only="sources")
    construct(chosen, tmp_path / "out", Here(), lambda _: None, only="select")

    def mains(changed: Pipeline) -> Counter[str]:
        rows = Tables(tmp_path / "out", changed).table("select").rows(["doc_ids", "task", "lang"])
        return Counter(row["doc_ids"][0] for row in rows if row["task"] == "T1" and row["lang"] == "English")

    plain = mains(chosen)
    (bad, _), *_ = reversed(plain.most_common())
    rows = tmp_path / "failed.jsonl"
    rows.write_text((json.dumps({"task": "T1", "score": 0.0, "doc_ids": [bad]}) + "\n") * 8, "utf-8")
    feedback = chosen.select.model_copy(update={"feedback": (str(rows),), "feedback_strength": 8.0})
    changed = chosen.model_copy(update={"select": feedback})
    construct(changed, tmp_path / "out", Here(), lambda _: None, only="select")
    assert mains(changed)[bad] > plain[bad]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "neither the folder of a run"),
        ("", "no task with a score"),
        ('{"task": "T1", "score": 2}', "score must be a number from 0 to 1"),
        ('{"task": "T1", "score": true}', "score must be a number from 0 to 1"),
        ('{"task": "T1", "score": 0, "doc_ids": "d1"}', "doc_ids must be a list"),
        ('{"score": 1}', "row 1: expected an object with the key task"),
        ("{", "row 1: not JSON"),
    ],
)
def test_feedback_that_says_nothing_is_named(tmp_path, content, message):
    path = tmp_path / "eval.jsonl"
    if content is not None:
        path.write_text(content, "utf-8")
    with pytest.raises(PipelineError, match=message) as caught:
        failures([str(path)], BINS)
    broken = tmp_path / "evaluation"
    broken.mkdir()
    (broken / "results.json").write_text('{"points": 3}', "utf-8")
    with pytest.raises(PipelineError, match="not the results of an evaluation"):
        failures([str(broken)], BINS)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("criterion", "features", "expected"),
    [
        (Criterion(features={"numbers": 10}), {"numbers": 9}, 0.0),
        (Criterion(features={"numbers": 10}), {"numbers": 10}, 1.0),
        (Criterion(features={"numbers": 10}), {"numbers": 40}, 2.0),
        (Criterion(features={"numbers": 10}), {"numbers": 10**9}, 4.0),
        (Criterion(features={"numbers": 10, "dates": 2}), {"dates": 2}, 1.0),
        (Criterion(sources=("books",)), {}, 1.0),
        (Criterion(sources=("laws",)), {"numbers": 99}, 0.0),
        (Criterion(), {}, 1.0),
    ],
)
def test_a_document_suits_by_what_it_holds(criterion, features, expected):
    assert preference(candidate(1, **features), criterion) == expected


def test_every_task_type_has_a_criterion():
    assert sorted(DEFAULTS) == [f"T{number}" for number in range(1, 10)]


def picked(candidates: list[Candidate], count: int = 60, most: int = 10, span: LengthBin = BINS[0]) -> list:
    picker = Picker([(one, 1.0) for one in candidates], candidates, most)
    used: Counter[str] = Counter()
    return [picker.pick(Cell("T1", span.name, "English"), number, span, 1, used) for number in range(count)]


def test_slots_use_all_documents_and_none_too_often():
    slots = [slot for slot in picked([candidate(number) for number in range(20)]) if slot]
    mains = Counter(slot.doc_ids[0] for slot in slots)
    assert len(slots) == 60
    assert max(mains.values()) <= 10
    assert len(mains) >= 15
    assert all(len(set(slot.doc_ids)) == len(slot.doc_ids) for slot in slots)


def test_another_document_changes_few_slots():
    documents = [candidate(number) for number in range(40)]
    before, after = picked(documents, most=99), picked([*documents, candidate(99)], most=99)
    same = sum(one.doc_ids[0] == two.doc_ids[0] for one, two in zip(before, after, strict=True))
    assert same >= 54


def test_short_documents_are_joined_until_the_context_is_long_enough():
    for slot in picked([candidate(number, tokens=300) for number in range(30)], span=BINS[1], most=99):
        assert slot.n_tokens >= slot.target_tokens >= 1000
        assert len(slot.doc_ids) >= 4
    assert picked([candidate(1, tokens=300)], span=BINS[1]) == [None] * 60


def test_documents_that_are_not_used_say_why_and_short_quotas_are_named(tmp_path):
    documents = write_documents(tmp_path / "in")
    chosen = pipeline(documents).model_copy(update={"select": select(tasks={"T5": 3}, languages={"English": 1.0})})
    tables = Tables(tmp_path / "out", chosen)
    lines: list[str] = []
    for stage in ("sources", "select"):
        construct(chosen, tmp_path / "out", Here(), lines.append, only=stage)
    rows = list(tables.table("select").rows(kept=False))
    reasons = Counter(row["reason"] for row in rows)
    assert reasons[None] == 3
    assert reasons["language not asked for"] == 1
    assert reasons["not needed"] >= 5
    many = select(tasks={"T5": 900}, languages={"Chinese": 1.0}, max_per_document=2)
    greedy = chosen.model_copy(update={"select": many})
    lines.clear()
    construct(greedy, tmp_path / "out", Here(), lines.append, only="select")
    assert any("T5 long Chinese: " in line and "too few documents" in line for line in lines)
