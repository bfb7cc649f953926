"""The stage `verify` against a scripted second model, and what its answers say of a sample."""

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl.data.construct.tables import Tables
from golongrl.data.construct.verify.judge import Gates, Gold, Trial, find
from golongrl.data.construct.verify.questions import Questions, around
from golongrl.data.construct.verify.stage import VerifyStage
from support.constructed import HERE, pipeline, run_alone, write_sources_and_slots, write_table
from support.llm_endpoint import Said, Script, served
from support.run_one_stage import kill_while_calls_are_held, run_and_die

CONTEXT = "The harbour office opened in 1871 and kept a register of every vessel that entered the bay."
GOLD = Gold("EM", "EM", {"golden_label": "1871", "doc_ids": [], "summary": "English"})
GATES = Gates(agree=2, guesses=0, threshold=0.99)
RIGHT, WRONG = "<think>it says so</think>1871", "1902"


def sample(**changes: object) -> dict[str, object]:
    return {
        "slot_id": "select-0", "task": "T1", "length_bin": "short", "lang": "English", "doc_ids": ["d"],
        "source": "harbour", "data_source": "EM", "reward_mode": "EM", "question": "When did the harbour office open?",
        "answer": "1871", "golds": [], "evidence": [CONTEXT], "context": CONTEXT, "generator": "model m",
        "prompt_sha": "abc", **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("with_context", "without", "padded", "reason"),
    [
        ([RIGHT] * 4, [WRONG] * 4, [RIGHT, WRONG], None),
        ([RIGHT, RIGHT, "1900", "1901"], [WRONG] * 4, None, None),
        ([RIGHT, "1902", "1900", "1901"], [WRONG] * 4, [RIGHT], "wrong with the documents"),
        (["1902", "1902.", "1902", " 1902"], [WRONG] * 4, [RIGHT], "gold not unique"),
        ([RIGHT] * 4, [WRONG, RIGHT, WRONG, WRONG], [RIGHT], "answered without the documents"),
        ([RIGHT] * 4, [WRONG] * 4, [WRONG, WRONG], "lost in other documents"),
        ([None] * 4, [WRONG] * 4, [RIGHT], "not answered"),
        ([RIGHT] * 4, [None] * 4, [RIGHT], "not answered"),
        ([RIGHT, RIGHT, None, None], [WRONG, None], [None, RIGHT], None),
        (None, [WRONG] * 4, None, None),
        (None, [WRONG, RIGHT], None, "answered without the documents"),
    ],
)
def test_each_gate_has_its_reason(with_context, without, padded, reason):
    def trial(answers):
        return None if answers is None else Trial(answers)

    finding = find(GOLD, GATES, trial(with_context), Trial(without), trial(padded))
    assert finding.reason == reason
    assert (finding.with_context is None) == (with_context is None)
    assert (finding.padded is None) == (padded is None)


def test_guesses_may_be_allowed():
    gates = replace(GATES, guesses=1)
    assert find(GOLD, gates, None, Trial([RIGHT, WRONG, WRONG]), None).reason is None


answers = st.lists(st.sampled_from([RIGHT, WRONG, "1900", None, "<think>cut", ""]), min_size=1, max_size=6)


@given(answers, answers, answers)
def test_a_verdict_does_not_depend_on_prompts_that_come_after_it(with_context, without, padded):
    whole = find(GOLD, GATES, Trial(with_context), Trial(without), Trial(padded))
    not_asked = Trial([None] * 4, asked=False)
    for part in (
        find(GOLD, GATES, None, Trial(without), None),
        find(GOLD, GATES, Trial(with_context), Trial(without), None),
    ):
        if part.reason is not None:
            assert whole.reason == part.reason
    if find(GOLD, GATES, None, Trial(without), None).reason is not None:
        assert find(GOLD, GATES, not_asked, Trial(without), not_asked).reason == whole.reason


@given(answers, answers, answers)
def test_a_kept_sample_met_every_gate(with_context, without, padded):
    finding = find(GOLD, GATES, Trial(with_context), Trial(without), Trial(padded))
    right = [each.count(RIGHT) for each in (with_context, without, padded)]
    assert [finding.with_context, finding.without_context, finding.padded] == right
    if finding.reason is None:
        assert right[0] >= 2
        assert right[1] == 0
        assert right[2] >= 1


def test_the_three_prompts():
    asked = Questions("EM", "EM", "English", CONTEXT, "When?", "Before it.", "After it.")
    assert asked.with_context().startswith(f"{CONTEXT}\n\n----\nWhen?\n\nAnswer in exactly this form")
    assert CONTEXT not in asked.without_context()
    assert "not available" in asked.without_context()
    padded = asked.padded()
    places = [
        padded.index(part) for part in ("Before it.", "TEXT BEGINS =", CONTEXT, "TEXT ENDS =", "After it.", "When?")
    ]
    assert places == sorted(places)
    assert "无法提供" in replace(asked, lang="Chinese").without_context()
    assert around(["a", "b", "c"]) == ("a\n\nb", "c")


def stage_of(tmp_path: Path, url: str, out: str = "out", **verify: object) -> tuple[VerifyStage, Tables]:
    model = {"url": url, "model": "second", "attempts": 2, "concurrency": 3, "max_tokens": 100}
    made = pipeline(tmp_path, verify={"model": model, "tries": 3, "agree": 2, **verify})
    tables = Tables(tmp_path / out, made)
    assert made.verify is not None
    return VerifyStage(made, tables, HERE, made.verify), tables


def script(reading: str, guess: str, padded: str) -> Script:
    def answer(body: dict, _: int) -> Said:
        prompt = body["messages"][0]["content"]
        if "not available" in prompt:
            return Said(guess)
        return Said(padded if "TEXT BEGINS =" in prompt else reading)

    return answer


@pytest.mark.parametrize(
    ("said", "reason", "calls"),
    [
        (("1871", "1902", "1871"), None, 8),
        (("1871", "1871", "1871"), "answered without the documents", 3),
        (("1902", "1900", "1871"), "gold not unique", 6),
        (("1871", "1902", "no idea"), "lost in other documents", 8),
    ],
)
def test_a_written_sample_is_asked_in_three_ways_until_one_refuses_it(tmp_path, said, reason, calls):
    write_sources_and_slots(tmp_path / "out", ["T1"])
    out = Tables(tmp_path / "out", pipeline(tmp_path))
    (first, *_) = out.table("sources").rows(["doc_id"])
    write_table(tmp_path / "out", "generate", [sample(doc_ids=[first["doc_id"]])])
    with served(script(*said)) as server:
        stage, tables = stage_of(tmp_path, server.url, padding=1.5)
        manifest, (row,) = run_alone(stage, tables)
        # Three without, three with, two padded; the padding comes from the other documents.
        assert len(server.asked) == calls
        assert all(body["max_tokens"] == 100 for body in server.asked)
        for path in tables.table("verify").shards():
            path.unlink()
        assert run_alone(stage, tables)[1] == [row]
        assert len(server.asked) == calls
    assert (row["with_context"] is None) == (calls == 3)
    assert (row["padded"] is None) == (calls < 8)
    assert row["sample_id"] == "generate-0"
    assert row["reason"] == reason
    assert manifest.kept == (reason is None)
    assert (row["model"], row["tries"]) == ("second", 3)


def test_a_killed_process_asks_for_nothing_twice_but_what_was_in_flight(tmp_path):
    for name in ("whole", "killed"):
        write_sources_and_slots(tmp_path / name, ["T1"])
        (first, *_) = Tables(tmp_path / name, pipeline(tmp_path)).table("sources").rows(["doc_id"])
        rows = [
            sample(
                doc_ids=[first["doc_id"]], question=f"When did office {number} open?", context=f"{number}: {CONTEXT}"
            )
            for number in range(6)
        ]
        write_table(tmp_path / name, "generate", rows)
    hold = asyncio.Event()
    reached = threading.Event()
    answered: list[str] = []
    say = script("1871", "1902", "1871")

    def held(body: dict, before: int) -> Said:
        if len(answered) >= 20 and not hold.is_set():
            reached.set()
            return replace(say(body, before), wait=hold)
        answered.append(body["messages"][0]["content"])
        return say(body, before)

    with served(held) as server:
        stage_of(tmp_path, server.url)  # writes the pipeline's file
        kill_while_calls_are_held(
            tmp_path / "pipeline-under-test.yaml", tmp_path / "killed", "verify", reached, answered
        )
        in_flight = len(server.asked) - 20
        assert 1 <= in_flight <= 3
        hold.set()
        manifest = run_alone(*stage_of(tmp_path, server.url, "killed"))[0]
        assert (manifest.kept, manifest.rows) == (6, 6)
        # 3 without, 3 with, 2 padded.
        assert len(server.asked) == 6 * 8 + in_flight
        run_alone(*stage_of(tmp_path, server.url, "whole"))
    assert content(tmp_path / "killed" / "verify") == content(tmp_path / "whole" / "verify")


def test_a_process_killed_between_asking_and_writing_asks_for_nothing_again(tmp_path):
    for name in ("whole", "killed"):
        write_sources_and_slots(tmp_path / name, ["T1"])
        rows = [sample(question=f"When did office {number} open?") for number in range(3)]
        write_table(tmp_path / name, "generate", rows)
    with served(script("1871", "1902", "1871")) as server:
        stage_of(tmp_path, server.url)
        run_and_die(tmp_path / "pipeline-under-test.yaml", tmp_path / "killed", "verify")
        asked = len(server.asked)
        assert not list((tmp_path / "killed" / "verify").glob("0*.parquet"))
        manifest = run_alone(*stage_of(tmp_path, server.url, "killed"))[0]
        assert len(server.asked) == asked > 0
        assert manifest.kept == 3
        run_alone(*stage_of(tmp_path, server.url, "whole"))
    assert content(tmp_path / "killed" / "verify") == content(tmp_path / "whole" / "verify")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_golds_by_code_are_only_asked_without_the_documents(tmp_path):
    write_sources_and_slots(tmp_path / "out", ["T1"])
    write_table(tmp_path / "out", "generate", [sample(prompt_sha=None), sample(prompt_sha=None, answer="1999")])
    with served(script("never", "1999", "never")) as server:
        stage, tables = stage_of(tmp_path, server.url)
        _, (kept, refused) = run_alone(stage, tables)
        # Both have one question, so that the second finds the first one's answers.
        assert len(server.asked) == 3
    assert (kept["reason"], kept["with_context"], kept["without_context"]) == (None, None, 0)
    assert (refused["reason"], refused["without_context"]) == ("answered without the documents", 3)


@pytest.mark.parametrize(
    "said", [Said("too long", status=400), Said("<think>and so on", finish_reason="length")], ids=["400", "cut"]
)
def test_a_model_that_does_not_answer_says_nothing_about_the_sample(tmp_path, said):
    write_sources_and_slots(tmp_path / "out", ["T1"])
    write_table(tmp_path / "out", "generate", [sample()])
    with served(lambda _, __: said) as server:
        stage, tables = stage_of(tmp_path, server.url)
        manifest, _ = run_alone(stage, tables)
    assert dict(manifest.refused) == {"not answered": 1}


def test_what_it_would_cost_is_known_before(tmp_path):
    write_sources_and_slots(tmp_path / "out", ["T1"])
    write_table(tmp_path / "out", "generate", [sample(), sample(prompt_sha=None)])
    with served(lambda _, __: Said("1871")) as server:
        stage, _ = stage_of(tmp_path, server.url, budget={"calls": 5})
        lines = stage.forecast(2, list(stage.inputs())).lines
        assert "at most 11 calls" in lines[0] or "at most 9 calls" in lines[0]
        assert "budget's 5 calls" in lines[1]
        assert "at most 16 calls" in stage.forecast(2, None).lines[0]
        assert not server.asked
