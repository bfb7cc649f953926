"""Rows of public sets: what each becomes, and why one is refused."""

import json

import pytest

from golongrl.data.construct.conversion.readers import convert
from golongrl.data.construct.conversion.stage import ConvertStage
from golongrl.data.construct.formatting.stage import gold_fault
from golongrl.data.construct.load import load
from golongrl.data.construct.run import run_stage
from golongrl.data.construct.tables import Tables
from golongrl.data.construct.workers import Here
from support.construction import hotpot, pipeline, tree, write_documents
from support.run_one_stage import run_and_die

TEXT = "The river Ardo rises in the north and the town of Velm lies on it, as the map of 1741 shows."
HOTPOT = {
    "question": "On which river is the town?",
    "answer": "Ardo",
    "context": {"title": ["Velm", "Ardo"], "sentences": [["Velm is a town.", " It lies on the Ardo."], ["A river."]]},
    "supporting_facts": {"title": ["Velm", "Elsewhere"], "sent_id": [1, 0]},
}
PRO = {
    "context": TEXT,
    "question_nonthinking": "Put the events in order.",
    "answer": ["rises", "lies", "shows"],
    "secondary_task": "T2.1 Global Timeline Reconstruction",
    "language": "English",
}
V2 = {
    "question": "Where?", "choice_A": "Velm", "choice_B": "Ardo", "choice_C": "north", "choice_D": "map",
    "answer": "B", "context": TEXT,
}  # fmt: skip
OURS = {
    "data_source": "multitableqa_pretraining",
    "prompt": [{"role": "user", "content": f"{TEXT}\n\nList the places.\n\nAnswer in some form."}],
    "reward_model": {"ground_truth": {"golden_label": '{"data": [["Velm"]]}', "summary": "English"}},
    "extra_info": {"reward_mode": "multitableqa", "question": "List the places."},
}
GOOD = [
    ("longbench", {"input": "Which river?", "context": TEXT, "answers": ["Ardo"], "language": "en"}, "T1", "EM"),
    ("longbench_v2", V2, "T2", "selection"),
    ("longbench_pro", PRO, "T8", "longbench_pro"),
    ("hotpotqa", HOTPOT, "T1", "EM"),
    ("docmath", {"question": "How much?", "paragraphs": [TEXT, "It cost 3."], "ground_truth": 3.5}, "T4",
     "math_longcot_math_verify"),
    ("golongrl", OURS, "T5", "multitableqa_pretraining"),
]  # fmt: skip


@pytest.mark.parametrize(("reader", "record", "task", "data_source"), GOOD)
def test_a_row_becomes_a_sample_whose_gold_is_right(reader, record, task, data_source):
    sample = convert(reader, record)
    assert sample.get("reason") is None, sample
    assert (sample["task"], sample["data_source"], sample["lang"]) == (task, data_source, "English")
    assert sample["question"]
    assert "Velm" in sample["context"]
    truth = {"doc_ids": sample["golds"], "golden_label": sample["answer"], "summary": sample["lang"]}
    assert gold_fault(data_source, sample["reward_mode"], truth) is None


def test_what_the_set_calls_supporting_is_the_evidence():
    assert convert("hotpotqa", HOTPOT)["evidence"] == ["It lies on the Ardo."]
    pairs = HOTPOT | {
        "context": [["Velm", ["It lies on the Ardo."]]], "supporting_facts": [["Velm", 0]]
    }  # fmt: skip
    assert convert("hotpotqa", pairs)["evidence"] == ["It lies on the Ardo."]


def test_options_stand_in_the_question_and_instructions_of_others_do_not_stay():
    assert convert("longbench_v2", V2)["question"] == "Where?\n(A) Velm\n(B) Ardo\n(C) north\n(D) map"
    assert convert("golongrl", OURS)["context"] == TEXT


@pytest.mark.parametrize(
    ("reader", "record", "reason"),
    [
        ("hotpotqa", HOTPOT | {"answer": "yes"}, "guessable"),
        ("hotpotqa", HOTPOT | {"answer": "the Danube"}, "answer not in the context"),
        ("hotpotqa", HOTPOT | {"answer": "word " * 30}, "long answer"),
        ("hotpotqa", HOTPOT | {"context": "text"}, "not of the format"),
        ("longbench", {"input": "Which?", "context": TEXT, "answers": ["Ardo", "Velm"]}, "several answers"),
        ("longbench", {"input": "", "context": TEXT, "answers": ["Ardo"]}, "not of the format"),
        ("longbench_v2", V2 | {"answer": "E"}, "not of the format"),
        ("longbench_pro", PRO | {"secondary_task": "T99 Unheard of"}, "unknown task"),
        ("docmath", {"question": "Is it?", "paragraphs": ["a"], "ground_truth": True}, "not a number"),
        ("docmath", {"question": "Is it?", "paragraphs": ["a"], "ground_truth": float("nan")}, "not a number"),
        ("golongrl", OURS | {"data_source": "poetry"}, "unknown task"),
        ("golongrl", OURS | {"extra_info": {"reward_mode": "multitableqa"}}, "no question"),
        ("golongrl", {"prompt": []}, "not of the format"),
        ("golongrl", ["no", "object"], "not of the format"),
    ],
)
def test_a_row_that_fits_no_reward_is_refused_with_the_reason(reader, record, reason):
    assert convert(reader, record)["reason"] == reason


def test_a_file_is_read_to_its_limit_and_a_bad_line_costs_one_row(tmp_path):
    file = tmp_path / "set.jsonl"
    lines = [json.dumps(HOTPOT), "no json", "", *[json.dumps(HOTPOT | {"answer": "yes"})] * 100]
    file.write_text("\n".join(lines), "utf-8")
    inputs = [{"path": str(file), "reader": "hotpotqa", "limit": 70}]
    chosen = pipeline(write_documents(tmp_path / "documents"), convert={"inputs": inputs})
    table = Tables(tmp_path / "out", chosen).table("convert")
    manifest = run_stage(ConvertStage(chosen, Here()), table, lambda _: None)
    assert manifest.balanced
    assert (manifest.rows, manifest.kept) == (70, 1)
    assert manifest.refused == {"guessable": 68, "not JSON": 1}
    rows = list(table.rows(kept=False))
    assert rows[1]["generator"] == "hotpotqa: set.jsonl row 2"
    assert rows[2]["generator"] == "hotpotqa: set.jsonl row 4"


@pytest.mark.parametrize(
    ("golds", "mode", "reason"),
    [
        (["a", "b", "A "], "T1.1 Global Cohesive Retrieval", "tie in a ranking"),
        (["a", "b", "b"], "T2.1 Global Timeline Reconstruction", "tie in a ranking"),
        ([], "T5.1 Full-Sentence Citation Alignment", "gold does not score 1.0"),
        (["a"], "T2.1 Global Timeline Reconstruction", "gold does not score 1.0"),  # one item has no order
        (["a", "b"], "T2.1 Global Timeline Reconstruction", None),
    ],
)
def test_golds_that_nobody_could_reach_are_refused(golds, mode, reason):
    found = gold_fault("longbench_pro", mode, {"doc_ids": golds, "golden_label": "", "summary": "English"})
    assert (found and found[0]) == reason


def test_a_process_killed_between_two_blocks_makes_only_the_others(tmp_path):
    file = tmp_path / "pipeline.yaml"
    rows = {"inputs": [hotpot(tmp_path / "hotpot.jsonl", 130)]}
    file.write_text(json.dumps(tree(write_documents(tmp_path / "documents"), convert=rows)), "utf-8")
    tables = {name: Tables(tmp_path / name, load(str(file))) for name in ("whole", "killed")}
    run_and_die(file, tmp_path / "killed", "convert", written=1)
    (first,) = tables["killed"].table("convert").shards()
    before = first.stat().st_mtime_ns
    for each in tables.values():
        manifest = run_stage(ConvertStage(load(str(file)), Here()), each.table("convert"), lambda line: None)
        assert (manifest.rows, manifest.kept, len(manifest.shards)) == (130, 130, 3)
    assert first.stat().st_mtime_ns == before
    whole, killed = (
        {path.name: path.read_bytes() for path in each.table("convert").folder.iterdir()} for each in tables.values()
    )
    assert killed == whole
