"""The embedded engine's spans: of each response, in the trace that its request named."""

from pathlib import Path

import httpx
import pytest

from golongrl.engine.app import create_app
from golongrl.engine.config import EngineConfig
from golongrl.telemetry.tracing import ENDPOINT, HEADER, Tracing, of_group, tracing
from support.otlp import collector

PHASES = ["engine.queue", "engine.prefill", "engine.decode"]


async def ask(tiny_model: Path, traced: Tracing, headers: dict[str, str]) -> None:
    app = create_app(EngineConfig(model_path=tiny_model), tracing=traced)
    sampling = {"max_new_tokens": 4, "ignore_eos": True, "n": 2}
    chat = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 3}
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://engine", timeout=300) as client:
            for path, body in (
                ("/generate", {"input_ids": [5, 6, 7], "sampling_params": sampling}),
                ("/generate", {"input_ids": [5, 6, 7], "sampling_params": sampling, "stream": True}),
                ("/v1/chat/completions", chat),
                ("/v1/chat/completions", {**chat, "stream": True}),
            ):
                answer = await client.post(path, json=body, headers=headers)
                assert answer.status_code == 200, answer.text


async def test_each_response_has_its_span_in_the_requests_trace(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = of_group("r", "0-1")
    with collector() as received:
        monkeypatch.setenv(ENDPOINT, received.endpoint)
        traced = tracing("engine", "r")
        await ask(tiny_model, traced, {HEADER: context.traceparent})
        traced.close()
    assert {(span.trace, span.service) for span in received.spans} == {(context.trace, "golongrl-engine")}
    responses = [span for span in received.spans if span.name == f"text_completion {tiny_model}"]
    assert [span.attributes["gen_ai.usage.output_tokens"] for span in responses[:4]] == [4, 4, 4, 4]
    assert len(responses) == 6
    for span in responses:
        assert span.parent == context.span
        phases = [each for each in received.spans if each.parent == span.span]
        assert [each.name for each in phases] == PHASES
        assert (phases[0].start, phases[-1].end) == (span.start, span.end)
        assert [each.end for each in phases[:-1]] == [each.start for each in phases[1:]]
    assert {span.attributes["gen_ai.usage.input_tokens"] for span in responses[:4]} == {3}


async def test_a_request_without_a_trace_has_none(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as received:
        monkeypatch.setenv(ENDPOINT, received.endpoint)
        traced = tracing("engine", "r")
        await ask(tiny_model, traced, {})
        await ask(tiny_model, traced, {HEADER: "nonsense"})
        traced.close()
    assert received.spans == []
