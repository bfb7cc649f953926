"""`golongrl eval run` against a scripted server: every benchmark end to end, bad servers, a kill, two at once."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from golongrl.errors import GolongrlError, InputError
from golongrl.evaluation.kinds import Mode
from golongrl.evaluation.metrics import CATALOGUE, EvaluationMetrics
from golongrl.evaluation.registry import BENCHMARKS
from golongrl.evaluation.report import inspect_logs, results, summary
from golongrl.evaluation.report.compare import compared
from golongrl.evaluation.report.text import failures, score_lines
from golongrl.evaluation.run import execute as run_execute
from golongrl.evaluation.run import pool
from golongrl.evaluation.run.execute import EvalRequest, execute
from golongrl.evaluation.run.silence import TargetGoneError
from golongrl.evaluation.sources import DataFiles
from golongrl.evaluation.store.journal import read_entries
from golongrl.evaluation.suite import load
from golongrl.llm import ChatClient, ChatRequest, Endpoint, LlmMessage
from golongrl.telemetry.scrape_port import scraped
from support.eval_data import right_reply, write_eval_data, write_rows
from support.llm_endpoint import Said
from support.openai_server import OpenAIServer, openai_server

JUDGE = "judge"
MODES: tuple[Mode, ...] = ("strict", "compat", "official")
Other = Callable[[dict[str, Any], int], Said | None]
QUICK = ("limits.attempts=2", "limits.concurrency=8")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_eval_data(tmp_path_factory.mktemp("eval-data"))


@pytest.fixture(scope="session")
def right(data: Path) -> dict[str, str]:
    """The last message of each problem -> a right reply."""
    found = {}
    for benchmark in BENCHMARKS.values():
        with DataFiles.find(data, benchmark.sources) as files:
            for problem in benchmark.problems(files):
                if benchmark.conversational:
                    found[problem.question] = right_reply(problem)
                    continue
                for mode in MODES:
                    found[benchmark.messages(problem, files, mode)[-1]["content"]] = right_reply(problem)
    return found


@pytest.fixture
def serve(right: dict[str, str]) -> Iterator[Callable[..., OpenAIServer]]:
    """Starts servers that answer right, or first by another script; the judge of the same server agrees."""
    from contextlib import ExitStack

    with ExitStack() as stack:

        def start(
            other: Callable[[dict[str, Any], int], Said | None] = lambda _, __: None, **more: Any
        ) -> OpenAIServer:
            def script(request: dict[str, Any], turn: int) -> Said:
                if said := other(request, turn):
                    return said
                if request["model"] == JUDGE:
                    return Said("They are the same, yes. [[CORRECT]] [[YES]]")
                question = request["messages"][-1]["content"]
                # What fills a memory asks for nothing.
                filling = question not in right and "You have a memory" in request["messages"][0]["content"]
                return Said("</think>Noted." if filling else right[question])

            return stack.enter_context(openai_server(script, ("m", JUDGE), **more))

        yield start


def evaluate(server: OpenAIServer, out: Path, data: Path, tokenizer: Path, *sets: str, suite: str = "aime24", **more):
    words = [f"target.place='{server.url}'", "target.model=m", f"target.tokenizer='{tokenizer}'", f"data='{data}'"]
    return execute(EvalRequest(load(suite, [*words, *QUICK, *sets]), out, **more), lambda _: None)


def test_what_a_scrape_reads_while_it_runs_and_when_it_has_ended(serve, tmp_path, data, tiny_model) -> None:
    metrics = EvaluationMetrics()
    seen: list[dict[str, float]] = []

    def look(request: dict[str, Any], _: int) -> Said | None:
        with httpx.Client() as client:
            text = client.get(f"http://127.0.0.1:{port}/metrics", timeout=60).text
        seen.append(
            {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in text.splitlines() if line[0] != "#"}
        )
        return Said("x", status=400) if len(seen) == 1 else None

    server = serve(look)
    words = [f"target.place='{server.url}'", "target.model=m", f"target.tokenizer='{tiny_model}'", f"data='{data}'"]
    suite = load("aime24", [*words, *QUICK, "sampling.repeats=4"])
    with scraped(metrics.registry, "127.0.0.1", 0) as port:
        execute(EvalRequest(suite, tmp_path / "out"), lambda _: None, metrics)
        look({}, 0)
    assert seen[0]["golongrl_evaluation_requests_in_flight"] >= 1
    assert seen[0]["golongrl_evaluation_requests_limit"] == 8
    assert seen[0]['golongrl_evaluation_models{state="left"}'] == 1
    last = seen[-1]
    assert last['golongrl_evaluation_samples{benchmark="aime24",status="scored"}'] == 7
    assert last['golongrl_evaluation_samples{benchmark="aime24",status="failed"}'] == 1
    assert last['golongrl_evaluation_samples_expected{benchmark="aime24"}'] == 8
    assert last['golongrl_evaluation_score{benchmark="aime24"}'] == 1.0
    assert last['golongrl_evaluation_models{state="done"}'] == 1
    assert last["golongrl_evaluation_step"] == -1
    assert last['golongrl_evaluation_reply_seconds_count{benchmark="aime24"}'] == 7
    assert last['golongrl_evaluation_tokens_total{kind="completion"}'] > 0
    exported = {family.name for family in metrics.registry.collect()}
    assert exported == set(CATALOGUE.metrics)


def only(out: Path) -> dict[str, Any]:
    """The one benchmark of the one point."""
    (point,) = results.read(out)["points"]
    (found,) = point["benchmarks"].values()
    return found


def judge_of(server: OpenAIServer) -> tuple[str, ...]:
    return f"judge.place='{server.url}'", f"judge.model={JUDGE}"


@pytest.mark.parametrize("mode", ["strict", *(pytest.param(mode, marks=pytest.mark.full) for mode in MODES[1:])])
def test_every_benchmark_scores_1_for_right_replies(serve, tmp_path, data, tiny_model, mode) -> None:
    server = serve()
    out = evaluate(server, tmp_path / "out", data, tiny_model, *judge_of(server), f"mode={mode}", suite="paper")
    (point,) = results.read(out)["points"]
    assert set(point["benchmarks"]) == set(load("paper").benchmarks)
    for name, found in point["benchmarks"].items():
        if name in ("mrcr-512k", "mrcr-1m"):
            assert found["why_no_value"] == "no problem of the data belongs to it"
            assert found["outside"]
            continue
        assert found["value"] == pytest.approx(1.0), name
        assert found["asked"] == found["expected"] > 0
        assert found["rows"][0]["scored"] == found["asked"]
    assert point["paper_average"] == pytest.approx(100.0)
    asked = Counter(request["model"] for request in server.asked)
    samples = sum(found["asked"] for found in point["benchmarks"].values())
    turns = sum("You have a memory" in request["messages"][0]["content"] for request in server.asked)
    memory = point["benchmarks"]["bfcl-memory"]
    assert memory["departures"] == ["without the vector backend, which needs target.embedder"]
    assert asked["m"] - turns == samples - memory["asked"]
    page = (out / "report.html").read_text()
    assert all(BENCHMARKS[name].title.replace("<", "&lt;") in page for name in point["benchmarks"])
    assert "http" not in page.split("<main>")[0], "nothing is fetched"


def test_repeats_are_exact_and_have_seeds_of_their_own(serve, tmp_path, data, tiny_model) -> None:
    server = serve()
    out = evaluate(server, tmp_path / "out", data, tiny_model)
    assert only(out)["asked"] == 2 * 32
    assert only(out)["figures"]["pass@32"] == 1.0
    seeds = [request["seed"] for request in server.asked]
    assert len(set(seeds)) == 64
    assert all(0 <= seed < 2**31 for seed in seeds)
    again = serve()
    evaluate(again, tmp_path / "other", data, tiny_model)
    assert sorted(request["seed"] for request in again.asked) == sorted(seeds), "seeds are a fact of the suite"


def test_what_has_no_score_is_counted_apart_and_stays_in_the_denominator(serve, tmp_path, data, tiny_model) -> None:
    """The first problem's repeats each meet another fate."""
    fates = {
        0: Said("longer than the context", status=400),
        1: Said(status=500),
        2: Said("<think>endless \\boxed{204}", finish_reason="length"),
        3: Said("no box at all"),
        4: Said(body="not JSON"),
        5: Said("never whole", cut=10),
    }
    given: dict[int, Said] = {}

    def script(request: dict[str, Any], turn: int) -> Said | None:
        if "12 " not in request["messages"][-1]["content"]:
            return None
        if request["seed"] not in given and len(given) < len(fates):
            given[request["seed"]] = fates[len(given)]
        return given.get(request["seed"])

    server = serve(script)
    found = only(evaluate(server, tmp_path / "out", data, tiny_model, "sampling.repeats=8"))
    total = found["rows"][0]
    assert (total["samples"], total["scored"], total["failed"]) == (16, 12, 4)
    assert total["truncated"] == 1
    assert found["value"] == pytest.approx(10 / 16)
    assert total["mean_scored"] == pytest.approx(10 / 12)
    reasons = {reason["reason"] for reason in found["failures"]}
    assert any("longer than the context" in reason for reason in reasons)
    assert any("HTTP 500" in reason for reason in reasons)
    assert found["departures"] == ["repeats 8 instead of 32"]


def test_a_full_server_is_asked_less_at_a_time_and_loses_no_sample(serve, tmp_path, data, tiny_model) -> None:
    answers = iter(range(12))

    def script(*_: Any) -> Said | None:
        number = next(answers, None)
        return None if number is None else Said(status=429 if number % 2 else 503, headers={"Retry-After": "0"})

    server = serve(script)
    found = only(evaluate(server, tmp_path / "out", data, tiny_model, "sampling.repeats=8"))
    assert (found["value"], found["asked"]) == (1.0, 16)
    assert len(server.asked) == 16 + 12, "more refusals than attempts"


def test_a_releases_pool_has_its_own_rollouts_first(serve, tmp_path, data, tiny_model, monkeypatch) -> None:
    """The evaluation keeps to its share, halves it while an engine's requests wait, and asks at a lower priority."""
    server = serve(lambda *_: None)
    monkeypatch.setattr(pool, "url_of", lambda _: server.url)
    server.pages["/server_info"] = json.dumps({"enable_priority_scheduling": True, "default_priority_value": 0})
    server.pages["/metrics"] = "sglang:num_queue_reqs 2.0\n"
    words = [f"target.tokenizer='{tiny_model}'", "target.model=m", f"data='{data}'", "limits.pool_concurrency=3"]
    suite = load("aime24", [*words, "sampling.repeats=8", "target.place='release:mine'"])
    out = execute(EvalRequest(suite, tmp_path / "out"), lambda _: None)
    assert only(out)["value"] == 1.0
    assert server.most_in_flight <= 3
    assert {request["priority"] for request in server.asked} == {-1}
    assert results.read(out)["target"] == "release-mine"


async def test_a_share_shrinks_while_requests_wait_and_grows_with_answers(serve) -> None:
    server = serve(lambda *_: Said("fine"))
    server.pages["/metrics"] = "sglang:num_queue_reqs 1.0\n"
    said: list[str] = []
    client = ChatClient(Endpoint(server.url, "m", 8))
    async with client, pool.GivingWay(client, "NO_KEY", said.append, look_s=0.01):
        while client.gate.limit.room > 1:
            await asyncio.sleep(0.01)
        server.pages["/metrics"] = "sglang:num_queue_reqs 0.0\n"
        question = ChatRequest(messages=(LlmMessage(role="user", content="?"),), max_tokens=1)
        while client.gate.limit.room < 4:
            await client.chat(question, cost=0)
        del server.pages["/metrics"]
        while not said:
            await asyncio.sleep(0.01)
    assert "limits.pool_concurrency (8) alone" in said[0]


def test_thoughts_that_the_server_separates(serve, tmp_path, data, tiny_model) -> None:
    def script(request: dict[str, Any], _: int) -> Said:
        gold = "204" if "12 " in request["messages"][-1]["content"] else "4"
        message = {"content": f"\\boxed{{{gold}}}", "reasoning_content": "wrong: \\boxed{1}"}
        choices = [{"message": message, "finish_reason": "stop"}]
        usage = {"prompt_tokens": 11, "completion_tokens": 7}
        spans = [{"version": "3", "start": 0, "end": 7}]
        return Said(body=json.dumps({"choices": choices, "usage": usage, "metadata": {"weight_versions": spans}}))

    found = only(evaluate(serve(script), tmp_path / "out", data, tiny_model, "sampling.repeats=2"))
    assert found["value"] == 1.0
    assert (found["cost"]["prompt_tokens"], found["cost"]["completion_tokens"]) == (44, 28)
    assert found["versions"] == ["3"]


def test_a_server_that_is_gone_ends_the_run_and_keeps_what_it_answered(serve, tmp_path, data, tiny_model) -> None:
    answered, gone = 0, True

    def script(*_: Any) -> Said | None:
        nonlocal answered
        answered += 1
        # The third one fails while others are answered.
        return None if answered in (1, 2, 4, 5) or (not gone and answered > 5) else Said(status=500)

    server, one = serve(script), ("limits.attempts=1", "limits.concurrency=1")
    with pytest.raises(TargetGoneError, match="8 requests in a row had no reply"):
        evaluate(server, tmp_path / "out", data, tiny_model, *one)
    found = only(tmp_path / "out")
    assert found["value"] is None
    assert "incomplete: 5 of 64" in found["why_no_value"]
    assert (found["rows"][0]["scored"], found["rows"][0]["failed"]) == (4, 1)
    gone = False
    # What was asked of a server that was gone is asked again.
    found = only(evaluate(server, tmp_path / "out", data, tiny_model, *one))
    assert (found["rows"][0]["scored"], found["rows"][0]["failed"]) == (63, 1)


def test_a_server_that_answers_nothing_of_a_few_is_gone_too(serve, tmp_path, data, tiny_model) -> None:
    few = ("limits.attempts=1", "limits.samples=1", "sampling.repeats=2")
    with pytest.raises(TargetGoneError, match="no request had a reply; model m at "):
        evaluate(serve(lambda *_: Said(status=500)), tmp_path / "out", data, tiny_model, *few)
    assert only(tmp_path / "out")["why_no_value"] == "nothing was asked"


def test_a_judge_that_is_gone_ends_the_run_and_leaves_nothing_unjudged(serve, tmp_path, data, tiny_model) -> None:
    gone = True

    def script(request: dict[str, Any], turn: int) -> Said | None:
        return Said(status=500) if gone and request["model"] == JUDGE else reworded(request, turn)

    server = serve(script)
    settings = (*judge_of(server), "limits.attempts=1", "judge.concurrency=1")
    with pytest.raises(TargetGoneError, match=f"model {JUDGE} at "):
        evaluate(server, tmp_path / "out", data, tiny_model, *settings, suite="frames")
    (journal,) = (tmp_path / "out" / "points").glob("*/frames.jsonl")
    assert {entry.sample.status for entry in read_entries(journal).values()} == {"needs_judge"}
    gone = False
    found = only(evaluate(server, tmp_path / "out", data, tiny_model, *settings, suite="frames"))
    assert found["rows"][0]["unjudged"] == 0
    assert found["value"] is not None


def test_why_requests_were_refused_is_printed(serve, tmp_path, data, tiny_model) -> None:
    out = evaluate(serve(lambda *_: Said("max_tokens is too large", status=400)), tmp_path / "out", data, tiny_model)
    (line,) = failures(results.read(out))
    assert line.startswith("model, aime24: 64 failed: ")
    assert "max_tokens is too large" in line


def test_a_full_server_is_named_while_it_is_waited_for(serve, tmp_path, data, tiny_model, monkeypatch) -> None:
    monkeypatch.setattr(run_execute, "_EVERY_S", 0.05)
    said: list[str] = []

    def script(*_: Any) -> Said | None:
        enough = sum("no change for" in line and "HTTP 503" in line for line in said) > 2
        return None if enough else Said("full", status=503)

    server = serve(script)
    words = [f"target.place='{server.url}'", "target.model=m", f"target.tokenizer='{tiny_model}'", f"data='{data}'"]
    execute(EvalRequest(load("aime24", [*words, *QUICK, "sampling.repeats=1"]), tmp_path / "out"), said.append)
    assert f"; model m at {server.url}: HTTP 503: " in "\n".join(said)


@pytest.mark.parametrize(("status", "said"), [(401, "HTTP 401"), (404, "HTTP 404")])
def test_a_server_that_refuses_everything_ends_the_run(serve, tmp_path, data, tiny_model, status, said) -> None:
    server = serve(lambda *_: Said(status=status))
    with pytest.raises(GolongrlError, match=said):
        evaluate(server, tmp_path / "out", data, tiny_model)
    assert len(server.asked) <= 8


def test_failed_samples_are_asked_again_only_when_told_to(serve, tmp_path, data, tiny_model) -> None:
    broken = True

    def script(request: dict[str, Any], _: int) -> Said | None:
        if "12 " in request["messages"][-1]["content"]:
            return Said("too long", status=400) if request["seed"] % 2 else Said(status=500) if broken else None
        return None

    server = serve(script)
    out = tmp_path / "out"
    settings = ("sampling.repeats=6", "limits.attempts=1", "limits.concurrency=2")
    first = only(evaluate(server, out, data, tiny_model, *settings))
    number = len(server.asked)
    evaluate(server, out, data, tiny_model, *settings)
    assert len(server.asked) == number, "nothing was in flight"
    broken = False
    second = only(evaluate(server, out, data, tiny_model, *settings, retry_failed=True))
    refused = sum(request["seed"] % 2 for request in server.asked[:number] if "12 " in str(request["messages"]))
    assert first["rows"][0]["failed"] == 6
    assert second["rows"][0]["failed"] == refused
    assert len(server.asked) == number + 6 - refused, "a refused request is not repeated"


def reworded(request: dict[str, Any], _: int) -> Said | None:
    """An answer that no rule knows to be right."""
    return None if request["model"] == JUDGE else Said("</think>The answer is: what they all say, in other words")


def test_without_a_judge_some_benchmarks_have_no_number(serve, tmp_path, data, tiny_model) -> None:
    server = serve(reworded)
    out = evaluate(server, tmp_path / "out", data, tiny_model, suite="corpusqa-128k")
    found = only(out)
    assert found["value"] is None
    assert found["why_no_value"] == "needs a judge (--judge URL)"
    ((_, _, score, _, notes),) = score_lines(results.read(out))
    assert score == "–"
    assert "needs a judge" in notes
    asked = len(server.asked)
    judged = only(evaluate(server, out, data, tiny_model, *judge_of(server), suite="corpusqa-128k"))
    assert judged["value"] == 1.0
    assert {request["model"] for request in server.asked[asked:]} == {JUDGE}, "only the judge is asked"


def test_a_judge_without_a_verdict_is_asked_again_and_then_counted(serve, tmp_path, data, tiny_model) -> None:
    stubborn: set[str] = set()

    def script(request: dict[str, Any], _: int) -> Said | None:
        if request["model"] != JUDGE:
            return reworded(request, 0)
        prompt = request["messages"][0]["content"]
        if len(stubborn) < 1 or prompt in stubborn:
            stubborn.add(prompt)
            return Said("I cannot say.")
        return Said("hm") if request["temperature"] == 0 else Said("<think>[[YES]]</think>different [[NO]]")

    server = serve(script)
    out = evaluate(server, tmp_path / "out", data, tiny_model, *judge_of(server), suite="corpusqa-128k")
    found = only(out)
    entries = read_entries(results.journal_path(out, "model", "corpusqa-128k"))
    assert found["rows"][0]["unjudged"] + found["rows"][0]["scored"] == len(entries)
    assert found["value"] == 0.0, "the thought of a judge is no verdict"
    assert found["rows"][0]["unjudged"] == 1
    lines = results.journal_path(out, "model", "corpusqa-128k").read_text().splitlines()
    verdicts = [record for record in map(json.loads, lines) if record["kind"] == "verdict"]
    assert len(verdicts) == len(entries)
    for record in verdicts:
        (question,) = record["judged"]
        assert record["judge"] == JUDGE
        assert len(question["prompt"]) == 16
        assert question["replies"][0] in ("hm", "I cannot say.")
        if question["verdict"] is None:
            assert (record["status"], len(question["replies"])) == ("unjudged", 3)


def test_a_prompt_that_does_not_fit_is_skipped_or_cut_and_said(serve, tmp_path, data, tiny_model) -> None:
    server = serve(lambda *_: Said("</think>The correct answer is (A)"))
    short = ("context.length=1500", "sampling.max_tokens=100")
    cut = only(evaluate(server, tmp_path / "cut", data, tiny_model, *short, suite="longbench-v2"))
    assert cut["cost"]["cut_prompts"] > 0
    assert cut["rows"][0]["skipped"] == 0
    asked = len(server.asked)
    more = (*short, "context.rule=skip")
    skipped = only(evaluate(server, tmp_path / "skip", data, tiny_model, *more, suite="longbench-v2"))
    number = skipped["rows"][0]["skipped"]
    assert number == cut["cost"]["cut_prompts"]
    assert len(server.asked) - asked == skipped["expected"] - number
    assert "context 1,500 instead of 182,272" in skipped["departures"]
    assert any("do not fit in 1,400" in reason["reason"] for reason in skipped["failures"])
    with pytest.raises(InputError, match=r"longbench-v2.*row \d.*the prompt has"):
        evaluate(server, tmp_path / "refuse", data, tiny_model, *short, "context.rule=refuse", suite="longbench-v2")


def test_the_servers_context_bounds_prompt_and_answer(serve, tmp_path, data, tiny_model) -> None:
    server = serve(lambda *_: Said("</think>The correct answer is (A)"), context=4096)
    found = only(evaluate(server, tmp_path / "out", data, tiny_model, suite="longbench-v2"))
    assert {request["max_tokens"] for request in server.asked} == {51_200 * 4096 // 182_272}
    assert "context 4,096 instead of 182,272" in found["departures"]


def test_a_limit_is_spread_over_the_data_and_may_grow(serve, tmp_path, data, tiny_model) -> None:
    server, out = serve(), tmp_path / "out"
    one = only(evaluate(server, out, data, tiny_model, "limits.samples=1", "sampling.repeats=2"))
    assert (one["asked"], one["expected"]) == (2, 2)
    both = only(evaluate(server, out, data, tiny_model, "sampling.repeats=2"))
    assert (both["asked"], len(server.asked)) == (4, 4)
    back = only(evaluate(server, out, data, tiny_model, "limits.samples=1", "sampling.repeats=2"))
    assert (back["asked"], back["expected"], len(server.asked)) == (2, 2, 4)


def test_another_setting_or_another_file_needs_another_folder(serve, tmp_path, data, tiny_model) -> None:
    server, out = serve(), tmp_path / "out"
    evaluate(server, out, data, tiny_model, "sampling.repeats=1")
    for sets, named in (
        (["sampling.temperature=0.1"], r"sampling.temperature null, now 0.1"),
        (["sampling.repeats=1", "mode=compat"], "mode"),
    ):
        with pytest.raises(InputError, match=named):
            evaluate(server, out, data, tiny_model, "sampling.repeats=1", *sets)
    other = tmp_path / "changed"
    other.mkdir()
    row = {"id": "0", "problem": "What is $1$?", "answer": "1"}
    write_rows(other / "aime24.jsonl", [row])
    with pytest.raises(InputError, match=r"data\.aime24"):
        evaluate(server, out, other, tiny_model, "sampling.repeats=1")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match=r"thesis\.tex"):
        evaluate(server, foreign, data, tiny_model)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="no file for aime24"):
        evaluate(server, tmp_path / "new", foreign, tiny_model)
    with pytest.raises(InputError, match="environment variable"):
        evaluate(server, tmp_path / "new", data, tiny_model, "judge.place=http://u:hidden@127.0.0.1:1/v1")
    assert sorted(tmp_path.rglob("*")) == before


def test_an_endpoint_that_serves_another_model_needs_another_folder(serve, tmp_path, data) -> None:
    server = serve(lambda *_: Said("</think>Done. \\boxed{1}"), context=8192)
    out = tmp_path / "out"
    suite = load("aime24", [f"target.place='{server.url}'", f"data='{data}'", *QUICK, "sampling.repeats=1"])
    for models in ([{"id": "a", "max_model_len": 8192}], [{"id": "a", "max_model_len": 8192}]):
        server.models[:] = models
        execute(EvalRequest(suite, out), lambda _: None)
    asked = len(server.asked)
    before = (out / "results.json").read_bytes()
    for card, said in [
        ({"id": "b", "max_model_len": 8192}, 'model "a", now "b"'),
        ({"id": "a", "max_model_len": 4096}, "asked.context 8192, now 4096"),
    ]:
        server.models[:] = [card]
        with pytest.raises(InputError, match=f"its samples of aime24 were made with {said}; choose another --out"):
            execute(EvalRequest(suite, out), lambda _: None)
    assert len(server.asked) == asked
    assert (out / "results.json").read_bytes() == before


def test_a_judges_endpoint_that_serves_another_model_needs_another_folder(serve, tmp_path, data, tiny_model) -> None:
    server, judge = serve(reworded), serve()
    place = (f"judge.place='{judge.url}'", "limits.samples=1")
    judge.models[:] = [{"id": JUDGE}]
    evaluate(server, tmp_path / "out", data, tiny_model, *place, suite="frames")
    judge.models[:] = [{"id": "other"}]
    with pytest.raises(InputError, match="judge has judged, now other is served; choose another --out"):
        evaluate(server, tmp_path / "out", data, tiny_model, *place, "limits.samples=2", suite="frames")


def test_comparing_is_paired(serve, tmp_path, data, tiny_model) -> None:
    right_one = serve()
    wrong_one = serve(lambda request, _: Said("\\boxed{1}") if "12 " in str(request["messages"]) else None)
    before = evaluate(wrong_one, tmp_path / "a", data, tiny_model, "sampling.repeats=2")
    after = evaluate(right_one, tmp_path / "b", data, tiny_model, "sampling.repeats=2")
    (found,) = compared(before, after)
    assert (found.before, found.after, found.difference) == (0.5, 1.0, 0.5)
    assert (found.problems, found.better, found.worse) == (2, 1, 0)
    assert found.low is not None
    assert found.low < 0 < found.high
    (same,) = compared(after, after)
    assert (same.difference, same.low, same.high) == (0.0, 0.0, 0.0)


def test_comparing_says_how_many_samples_have_no_score(serve, tmp_path, data, tiny_model) -> None:
    refusing = serve(lambda request, _: Said("too long", status=400) if "12 " in str(request["messages"]) else None)
    before = evaluate(serve(), tmp_path / "a", data, tiny_model, "sampling.repeats=2")
    after = evaluate(refusing, tmp_path / "b", data, tiny_model, "sampling.repeats=2")
    (found,) = compared(before, after)
    assert found.note == "no score, counted as 0: 0 samples before, 2 after"
    assert compared(before, before)[0].note == ""


COMMAND = [sys.executable, "-m", "golongrl", "eval", "run", "aime24"]


def command(server: OpenAIServer, out: Path, data: Path, tokenizer: Path) -> list[str]:
    options = {"--target": server.url, "--model": "m", "--tokenizer": tokenizer, "--data": data, "--out": out}
    words = [str(word) for option in options.items() for word in option]
    return [*COMMAND, *words, "--set", "limits.concurrency=4", "--set", "sampling.repeats=16"]


def test_after_a_kill_only_what_was_in_flight_is_asked_again(serve, tmp_path, data, tiny_model) -> None:
    answered = 0

    def script(*_: Any) -> Said | None:
        nonlocal answered
        answered += 1
        return Said("late", held=True) if 20 < answered <= 24 else None

    server, out = serve(script), tmp_path / "out"
    process = subprocess.Popen(command(server, out, data, tiny_model), stderr=subprocess.PIPE, text=True)
    server.until(24)
    second = subprocess.run(command(server, out, data, tiny_model), capture_output=True, text=True, timeout=120)
    assert second.returncode == 2
    assert second.stderr.strip().endswith(f"another evaluation writes into it (pid {process.pid})")
    assert second.stderr.count("\n") == 1
    journal = results.journal_path(out, "model", "aime24")
    with server.changed:
        assert server.changed.wait_for(lambda: len(journal.read_text().splitlines()) == 20, 120)
    process.kill()
    process.wait()
    server.hold.set()
    # As a kill in the middle of a write leaves it.
    with journal.open("a") as file:
        file.write('{"kind":"reply","key":"0","epo')
    told = tmp_path / "termination-log"
    words = [*command(server, out, data, tiny_model), "--summary", str(told)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert only(out)["value"] == 1.0
    found = summary.read(told.read_text())
    assert found is not None
    assert (found.model, found.report) == ("model", str(out / "report.html"))
    assert [(one.benchmark, one.score, one.samples, one.expected) for one in found.scores] == [
        ("aime24", 100.0, 32, 32)
    ]
    assert len(server.asked) == 32 + 4
    seeds = Counter(request["seed"] for request in server.asked)
    assert sorted(seeds.values()) == [1] * 28 + [2] * 4
    assert len(read_entries(journal)) == 32


@pytest.mark.full
def test_a_signal_ends_it_in_order(serve, tmp_path, data, tiny_model) -> None:
    server, out = serve(lambda *_: Said("late", held=True)), tmp_path / "out"
    process = subprocess.Popen(command(server, out, data, tiny_model), stderr=subprocess.PIPE, text=True)
    server.until(4)
    process.send_signal(signal.SIGTERM)
    _, words = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert words.strip().splitlines()[-1] == "error: stopped by SIGTERM; run the same command again to continue"
    assert only(out)["why_no_value"] == "nothing was asked"


def test_logs_for_inspects_viewer_have_every_sample(serve, tmp_path, data, tiny_model) -> None:
    """What inspect-ai 0.3.285 requires of a log; its own reader opened such logs, in an environment of its own."""
    out = evaluate(serve(), tmp_path / "out", data, tiny_model, "sampling.repeats=2")
    (path,) = inspect_logs.write(out).iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d.*_aime24_model\.json", path.name)
    log = json.loads(path.read_text())
    assert (log["version"], log["status"]) == (2, "success")
    assert list(log) == ["version", "status", "eval", "plan", "results", "stats", "samples"]
    assert {"created", "task", "dataset", "model", "config"} <= log["eval"].keys()
    assert sorted((sample["id"], sample["epoch"]) for sample in log["samples"]) == [
        (key, epoch) for key in sorted({sample["id"] for sample in log["samples"]}) for epoch in (1, 2)
    ]
    for sample in log["samples"]:
        assert {"id", "epoch", "input", "target"} <= sample.keys()
        assert sample["scores"]["golongrl"]["value"] == 1.0
        assert "</think>" in sample["output"]["choices"][0]["message"]["content"]


def test_what_a_model_says_cannot_break_the_page(serve, tmp_path, data, tiny_model) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    server = serve(lambda *_: Said(f"</think>{evil}"))
    out = evaluate(server, tmp_path / "out", data, tiny_model, "sampling.repeats=1")
    page = (out / "report.html").read_text()
    assert "alert(1)" in page, "the worst samples are shown"
    assert evil not in page
    assert "<img" not in page
    for figure in re.findall(r'class="figure">(.*?)</script>', page):
        json.loads(figure)
