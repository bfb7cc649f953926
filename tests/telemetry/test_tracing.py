"""Spans reach a collector by OTLP where an endpoint is set; without one, nothing is recorded or imported."""

import subprocess
import sys
from dataclasses import replace

import httpx
import numpy as np
import pytest

from golongrl.errors import InputError
from golongrl.queue import Lease, schema
from golongrl.recipe import load
from golongrl.reward.app import create_app
from golongrl.reward.config import RewardConfig
from golongrl.telemetry.tracing import ENDPOINT, HEADER, TraceContext, Tracing, of_group, of_version, tracing
from support.groups import group_for
from support.otlp import collector


def test_off_without_an_endpoint() -> None:
    off = tracing("rollout", "r", {})
    assert not off.on
    assert off.headers(of_group("r", "0-1")) == {}
    off.record("x", of_group("r", "0-1"), 1.0, 2.0)
    off.close()
    code = "from golongrl.telemetry.tracing import tracing; import sys; tracing('x', 'r', {}).close()"
    seen = subprocess.run(
        [sys.executable, "-c", code + "; print('opentelemetry' in sys.modules)"], capture_output=True, text=True
    )
    assert seen.stdout == "False\n", seen.stderr


def test_contexts_are_known_by_names_alone() -> None:
    one = of_group("r", "0-1")
    assert one == of_group("r", "0-1")
    others = [of_group("r", "0-2"), of_group("s", "0-1"), of_version("r", "a", 1), of_version("r", "b", 1)]
    assert len({each.trace for each in (one, *others)}) == 5
    assert TraceContext.read(one.traceparent) == one


@pytest.mark.parametrize(
    "header", [None, "", "x", "00-0-0-01", f"00-{'0' * 32}-{'1' * 16}-01", f"00-{'1' * 32}-{'0' * 16}-01"]
)
def test_a_header_of_another_kind_is_none(header: str | None) -> None:
    assert TraceContext.read(header) is None


def test_spans_of_two_processes_make_one_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    context = of_group("r", "0-1")
    with collector() as received:
        monkeypatch.setenv(ENDPOINT, received.endpoint)
        worker, learner = tracing("rollout", "r"), tracing("learner", "r")
        sampling = worker.child(context)
        told = {"rl.group.uid": "0-1", "gen_ai.usage.output_tokens": 7}
        worker.record("rl.sample", context, 10.0, 12.0, told, own=sampling)
        worker.record("text_completion m", sampling, 10.0, 11.0)
        learner.record("rl.train", context, 13.0, 14.0)
        learner.record("rl.group", context, 10.0, 14.0, root=True)
        assert worker.headers(context) == {HEADER: context.traceparent}
        worker.close()
        learner.close()
    spans = {span.name: span for span in received.spans}
    assert {span.trace for span in received.spans} == {context.trace}
    root = spans["rl.group"]
    assert (root.span, root.parent, root.service) == (context.span, 0, "golongrl-learner")
    assert spans["rl.sample"].parent == spans["rl.train"].parent == root.span
    assert (spans["rl.sample"].span, spans["text_completion m"].parent) == (sampling.span, sampling.span)
    assert sampling.span != root.span
    assert spans["rl.sample"].attributes == told
    assert (spans["rl.train"].start, spans["rl.train"].end) == (13.0, 14.0)


def test_a_collector_that_is_not_there_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9")
    traced = tracing("rollout", "r")
    for number in range(5000):  # more than the queue of spans holds
        traced.record("x", of_group("r", f"0-{number}"), 1.0, 2.0)
    traced.close()


async def test_the_reward_service_adds_its_span(monkeypatch: pytest.MonkeyPatch) -> None:
    context = of_group("r", "0-1")
    item = {
        "id": "0-1.0",
        "data_source": "EM",
        "response": "x",
        "ground_truth": {"golden_label": "x", "doc_ids": [], "summary": "English"},
        "extra_info": {"reward_mode": "EM", "question": "q"},
    }
    with collector() as received:
        monkeypatch.setenv(ENDPOINT, received.endpoint)
        traced = tracing("reward")
        app = create_app(RewardConfig(workers=1), preload=(), tracing=traced)
        async with app.router.lifespan_context(app):
            await app.state.pool.wait_warm()
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://reward", timeout=120) as client:
                body = {"mode": "compat", "items": [item]}
                for headers in ({HEADER: context.traceparent}, {}, {HEADER: "nonsense"}):
                    assert (await client.post("/v1/score", json=body, headers=headers)).status_code == 200
        traced.close()
    (span,) = received.spans
    assert (span.name, span.trace, span.parent) == ("rl.reward.score", context.trace, context.span)
    assert span.attributes["rl.reward.batch_size"] == 1


def test_the_recipe_says_where_spans_go_unless_the_environment_does() -> None:
    with collector() as one, collector() as other:
        for environment in ({}, {ENDPOINT: other.endpoint}):
            traced = tracing("learner", "r", environment, recipes=one.endpoint + "/")
            traced.record("x", of_group("r", "0-1"), 1.0, 2.0)
            traced.close()
    assert [span.name for span in one.spans] == [span.name for span in other.spans] == ["x"]


@pytest.mark.parametrize(
    "endpoint", ["collector:4318", "http://", "http://user:key@collector", "http://c/?key=x", "ftp://c"]
)
def test_an_endpoint_that_is_none_or_holds_a_key_is_refused(endpoint: str) -> None:
    with pytest.raises(InputError, match=r"telemetry\.otlp_endpoint"):
        load("quickstart", [f"telemetry.otlp_endpoint='{endpoint}'"])
    assert load("quickstart", ["telemetry.otlp_endpoint=https://c.example:4318/otlp"]).telemetry.otlp_endpoint


def test_moments_of_a_group_are_stored_and_older_groups_are_read() -> None:
    group = group_for(Lease("0-1", 0, 1, 0, "t", "w", 3, "l", 0.0, 0.0))
    assert schema.decode(schema.encode(group)).moments == {}
    assert b"moments" not in schema.encode(group)
    timed = replace(group, moments={"leased": 1.0, "submitted": 2.5})
    assert schema.decode(schema.encode(timed)).moments == {"leased": 1.0, "submitted": 2.5}
    np.testing.assert_array_equal(schema.decode(schema.encode(timed)).prompt_ids, group.prompt_ids)


def test_it_is_off_in_a_bench_that_was_given_none() -> None:
    assert not Tracing("rollout").on
