"""The stage `generate`: samples by code, samples by a scripted model, and a process that is killed between them."""

import asyncio
import json
import threading
from pathlib import Path

import jsonschema
import pytest

from golongrl.data.construct.errors import PipelineError
from golongrl.data.construct.generate.stage import GenerateStage
from golongrl.data.construct.generate.written import Order, WrittenSample, schema_of
from golongrl.data.construct.generate_models import AskedModel
from golongrl.data.construct.generators import NoSampleError, outline
from golongrl.data.construct.tables import Tables
from golongrl.data.corpus import estimate_tokens
from golongrl.llm import BudgetSpentError, LlmReply, LlmUnavailableError, ReplyStore
from support.constructed import HERE, pipeline, run_alone, write_sources_and_slots
from support.documents import documents
from support.llm_endpoint import Said, served
from support.run_one_stage import kill_while_calls_are_held

TASKS = [f"T{number}" for number in range(1, 10)]
SENTENCE = "The harbour office opened in 1871 and kept a register of every vessel that entered the bay."


def stage_of(tmp_path: Path, url: str, *, concurrency: int = 4, **generate: object) -> tuple[GenerateStage, Tables]:
    model = {"url": url, "model": "writer", "attempts": 2, "concurrency": concurrency, "max_tokens": 500}
    settings = {"by_model": {"T1": 1.0}, "models": {"default": model}, **generate}
    made = pipeline(tmp_path, generate=settings)
    tables = Tables(tmp_path / "out", made)
    return GenerateStage(made, tables, HERE), tables


def good(answer: str = "a register of every vessel", **more: object) -> str:
    question = "What did the office keep from the year of its opening on?"
    return json.dumps({"question": question, "answer": answer, "evidence": [SENTENCE], **more})


def test_code_makes_a_row_for_every_slot_and_the_same_bytes_again(tmp_path):
    write_sources_and_slots(tmp_path / "out", TASKS, per_task=2)
    made = pipeline(tmp_path)
    tables = Tables(tmp_path / "out", made)
    stage = GenerateStage(made, tables, HERE)
    manifest, rows = run_alone(stage, tables)
    assert manifest.rows_in == len(rows) == 18
    assert manifest.kept + sum(manifest.refused.values()) == 18
    assert manifest.kept >= 15
    kept = [row for row in rows if row["reason"] is None]
    assert {row["task"] for row in kept} == set(TASKS)
    for row in kept:
        assert row["prompt_sha"] is None
        assert row["source"] == "harbour"
        assert row["evidence"]
        assert all(passage in row["context"] for passage in row["evidence"])
    before = {path.name: path.read_bytes() for path in tables.table("generate").shards()}
    for path in tables.table("generate").shards():
        path.unlink()
    run_alone(stage, tables)
    assert {path.name: path.read_bytes() for path in tables.table("generate").shards()} == before


def test_a_model_writes_its_part(tmp_path):
    write_sources_and_slots(tmp_path / "out", ["T1", "T3"], per_task=3)
    with served(lambda _, __: Said(good(), tokens=50)) as server:
        stage, tables = stage_of(tmp_path, server.url)
        _, rows = run_alone(stage, tables)
        asked = len(server.asked)
        by_model = [row for row in rows if row["generator"] == "model writer"]
        assert len(by_model) == asked == 3
        for row in by_model:
            assert row["task"] == "T1"
            assert (row["answer"], row["evidence"]) == ("a register of every vessel", [SENTENCE])
            assert len(row["prompt_sha"]) == 64
        assert all(row["prompt_sha"] is None for row in rows if row["task"] == "T3")
        assert "English" in server.asked[0]["messages"][0]["content"]
        # What the folder lost is made again from the replies, and another folder that shares them asks for nothing.
        for path in tables.table("generate").shards():
            path.unlink()
        assert run_alone(stage, tables)[1] == rows
        assert len(server.asked) == asked


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (Said("I would rather not."), "no JSON"),
        (Said('{"question": "What is it then?"'), "no JSON"),
        (Said('{"question": "What is it then?"}'), "wrong shape"),
        (Said(good(), finish_reason="length"), "cut"),
        (Said("the prompt is too long", status=400), "refused"),
        (Said(good(answer="a lighthouse on the moon")), "answer not in the context"),
        (Said(json.dumps({"question": "What is it then?", "answer": "1871", "evidence": ["Nobody wrote this."]})),
         "evidence not in the context"),
        (Said(json.dumps({"question": "Was it in 1871, or when?", "answer": "1871", "evidence": [SENTENCE]})),
         "answer in the question"),
    ],
    ids=["prose", "half", "shape", "cut", "400", "answer", "evidence", "leak"],
)  # fmt: skip
def test_an_answer_that_cannot_be_used_is_a_row_with_its_reason(tmp_path, said, reason):
    write_sources_and_slots(tmp_path / "out", ["T1"])
    with served(lambda _, __: said) as server:
        stage, tables = stage_of(tmp_path, server.url, tries=2)
        manifest, (row,) = run_alone(stage, tables)
        assert len(server.asked) == 2  # two tries, with different seeds
        assert len({body["seed"] for body in server.asked}) == 2
    assert (row["reason"], manifest.kept, dict(manifest.refused)) == (reason, 0, {reason: 1})


ANSWERS = {
    "T1": {"answer": "1871"},
    "T2": {"options": ["a", "b", "c", "d"], "answer": "A"},
    "T3": {"items": ["a", "b"]},
    "T4": {"answer": "12"},
    "T5": {"rows": [["a", 1], ["b", 2]]},
    "T6": {"items": ["a", "b"]},
    "T7": {"items": ["a", "b", "c"]},
    "T8": {"items": ["a", "b", "c", "d"]},
    "T9": {"answer": "A summary of what the text says."},
}


@pytest.mark.parametrize("task", TASKS)
def test_a_decoder_that_keeps_to_the_schema_leaves_out_no_key(task):
    """Where a key may be left out, a decoder may end the object before the gold."""
    schema = schema_of(task)
    whole = {"question": "What is asked here?", **ANSWERS[task], "evidence": [SENTENCE]}
    jsonschema.validate(whole, schema)
    WrittenSample.model_validate(whole)
    for key in whole:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({other: value for other, value in whole.items() if other != key}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**whole, "more": 1}, schema)


def test_a_second_try_may_be_usable_and_a_busy_server_is_waited_for(tmp_path):
    write_sources_and_slots(tmp_path / "out", ["T1"])
    seeds: list[int] = []

    def script(body: dict, before: int) -> Said:
        if not before:
            return Said(status=503)
        if body["seed"] not in seeds:
            seeds.append(body["seed"])
        return Said("nothing") if len(seeds) == 1 else Said(good())

    with served(script) as server:
        stage, tables = stage_of(tmp_path, server.url)
        manifest, _ = run_alone(stage, tables)
        assert manifest.kept == 1
        assert len(server.asked) == 4


def test_a_server_that_stays_away_ends_the_stage_and_a_rerun_completes_it(tmp_path):
    write_sources_and_slots(tmp_path / "out", ["T1"], per_task=4)
    up = {"calls": 2}

    def script(body: dict, before: int) -> Said:
        up["calls"] -= 1
        return Said(good()) if up["calls"] >= 0 else Said(status=500)

    with served(script) as server:
        # One call at a time: a failure that is read while others are answered is the request's own.
        stage, tables = stage_of(tmp_path, server.url, concurrency=1)
        with pytest.raises(LlmUnavailableError, match="finished calls are kept"):
            run_alone(stage, tables)
        with ReplyStore(tmp_path / "out" / "replies.sqlite") as store:
            kept, _ = store.count("generate")
        assert kept == 2
        up["calls"] = 100
        run_alone(stage, tables)
        assert 100 - up["calls"] == 4 - kept


def test_the_budget_is_shown_before_it_is_spent_and_holds(tmp_path):
    write_sources_and_slots(tmp_path / "out", ["T1"], per_task=4)
    with served(lambda _, __: Said(good())) as server:
        stage, tables = stage_of(tmp_path, server.url, budget={"calls": 3})
        forecast = stage.forecast(4, list(stage.inputs())).lines
        assert not server.asked
        assert forecast[0].startswith("at most 4 calls, about ")
        assert "up to 2000 completion tokens" in forecast[0]
        assert "more than the budget's 3 calls" in forecast[1]
        assert "at most 4 calls" in stage.forecast(4, None).lines[0]
        with pytest.raises(BudgetSpentError):
            run_alone(stage, tables)
        assert len(server.asked) == 3
        stage, tables = stage_of(tmp_path, server.url, budget={"calls": 3})
        assert stage.forecast(4, list(stage.inputs())).lines[0].startswith("at most 1 calls")
        manifest, _ = run_alone(stage, tables)
        assert len(server.asked) == 4
        assert manifest.rows == 4


def test_each_bin_needs_a_model(tmp_path):
    model = {"url": "http://127.0.0.1:1/v1", "model": "m"}
    with pytest.raises(PipelineError, match=r"generate\.models: no model for the length bin short"):
        stage_of(tmp_path, "", models={"overlong": model})
    with pytest.raises(PipelineError, match="by_model: no model is named"):
        pipeline(tmp_path, generate={"by_model": {"T1": 0.5}})


def test_a_changed_prompt_or_model_is_another_key(tmp_path):
    shown = outline(documents("English", 0), "English", 3000, estimate_tokens, 0.0)
    model = AskedModel(url="http://h/v1", model="m")
    order = Order("T1", shown, model, 1, 2)
    first, second = order.calls()
    other = Order("T1", shown, model.model_copy(update={"model": "n"}), 1, 2)
    assert len({first.key, second.key, next(other.calls()).key}) == 3
    assert first.request.messages == second.request.messages


CHOICE = {"options": ["one", "two", "three", "four"], "answer": "B"}
ITEMS = ["Copper", "Timber", "Oil", "Goods"]


@pytest.mark.parametrize(
    ("task", "fields", "gold"),
    [
        ("T2", CHOICE, "The correct answer is (B)"),
        ("T2", {**CHOICE, "answer": "(b)."}, "The correct answer is (B)"),
        ("T2", {**CHOICE, "answer": "E"}, "options"),
        ("T2", {**CHOICE, "options": ["one", "One", "three", "four"]}, "options"),
        ("T3", {"items": ITEMS}, ITEMS),
        ("T3", {"items": ["Copper"]}, "wrong number of items"),
        ("T3", {"items": ["Copper", "copper "]}, "gold not unique"),
        ("T4", {"answer": "1,200"}, "1200"),
        ("T4", {"answer": "about 12"}, "answer is not a number"),
        ("T5", {"rows": [["a", 1], ["b", 2]]}, '{"data": [["a", 1], ["b", 2]]}'),
        ("T5", {"rows": [["a", 1], ["b"]]}, "rows"),
        ("T5", {"rows": [["a", 1], ["a", 1]]}, "gold not unique"),
        ("T6", {"items": ["The harbour office\nopened in 1871", "kept a register"]},
         ["The harbour office opened in 1871", "kept a register"]),
        ("T6", {"items": ["kept a register", "not there"]}, "answer not in the context"),
        ("T7", {"items": ITEMS}, ITEMS),
        ("T7", {"items": [*ITEMS, "OIL"]}, "gold not unique"),
        ("T8", {"items": ITEMS, "question": "In which order came Oil, Goods, Copper and Timber?"}, ITEMS),
        ("T8", {"items": ITEMS, "question": "In which order did they come here?"}, "item not in the question"),
        ("T9", {"answer": "A short account of the harbour office and its register."},
         ["A short account of the harbour office and its register."]),
        ("T9", {"answer": "Too short."}, "summary too short"),
    ],
)  # fmt: skip
def test_what_a_model_wrote_is_checked(task, fields, gold):
    shown = outline(documents("English", 0), "English", 3000, estimate_tokens, 0.0)
    order = Order(task, shown, AskedModel(url="http://h/v1", model="m"), 1, 1)
    text = json.dumps({"question": "What is asked for here?", "evidence": [SENTENCE], **fields})
    try:
        sample = order.read(LlmReply("k", text, "stop"))
    except NoSampleError as error:
        assert error.reason == gold  # noqa: PT017
        return
    assert (sample.answer or list(sample.golds)) == gold


def test_a_killed_process_asks_for_nothing_twice_but_what_was_in_flight(tmp_path):
    write_sources_and_slots(tmp_path / "out", ["T1"], per_task=8)
    hold = asyncio.Event()
    reached = threading.Event()
    answered: list[str] = []

    def script(body: dict, before: int) -> Said:
        if len(answered) >= 4 and not hold.is_set():
            reached.set()
            return Said(good(), wait=hold)  # in flight when the process is killed
        answered.append(body["messages"][0]["content"])
        return Said(good())

    with served(script) as server:
        stage_of(tmp_path, server.url)  # writes the pipeline's file
        file = tmp_path / "pipeline-under-test.yaml"
        kill_while_calls_are_held(file, tmp_path / "out", "generate", reached, answered)
        in_flight = len(server.asked) - 4
        assert 1 <= in_flight <= 4
        hold.set()
        stage, tables = stage_of(tmp_path, server.url)
        manifest, rows = run_alone(stage, tables)
        assert manifest.kept + manifest.refused.get("duplicate question", 0) == 8
        assert len(server.asked) == 8 + in_flight
    assert len(rows) == 8
