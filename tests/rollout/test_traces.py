"""A group's trace from the worker to the learner, over a real queue, engine and reward service; the update is told."""

import asyncio
import time
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pytest

from golongrl.learner.batch.prepare import PreparedBatch
from golongrl.learner.traces import StepTraces
from golongrl.telemetry.tracing import ENDPOINT, HEADER, TraceContext, of_group, of_version, tracing
from rollout.harness import Start, publish, recipe
from support.otlp import collector


async def test_a_group_and_its_weights_are_traced_through_all_processes(
    start: Start, tmp_path: Path, tiny_model: Path, reward: httpx.ASGITransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    class Listening(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            seen.append(request.headers.get(HEADER, ""))
            return await reward.handle_async_request(request)

    with collector() as received:
        monkeypatch.setenv(ENDPOINT, received.endpoint)
        worker, learner = tracing("rollout", "test"), StepTraces(tracing("learner", "test"))
        async with start(recipe(), transport=Listening()) as bench:
            bench.bench.tracing = worker
            run = bench.bench.queue.run
            weights = publish(tmp_path, 0, tiny_model)
            await bench.learner.queue.announce(bench.learner.fence, weights)
            bench.start()
            batch = await bench.take()
            prepared = PreparedBatch(1, np.empty((0, 2), np.int32), [], {}, taken=time.time(), lengths=[(9, [3, 4])])
            prepared.moments = {group.uid: group.moments for group in batch.groups}
            learner.tracing.run = run
            began = time.time()
            learner.trained(prepared, began, began + 0.5, "l")
            learner.published(1, "l", began + 0.6, began + 0.7, 1000)
        await asyncio.to_thread(worker.close)
        await asyncio.to_thread(learner.tracing.close)
    traces = received.traces()
    for group in batch.groups:
        context = of_group(run, group.uid)
        spans = {span.name: span for span in traces[context.trace]}
        assert TraceContext(context.trace, spans["rl.reward"].span).traceparent in seen
        way = ["rl.sample", "rl.reward", "rl.queue.wait", "rl.batch.wait", "rl.train"]
        assert set(spans) == {"rl.group", *way}
        assert [spans[name].start for name in way] == sorted(spans[name].start for name in way)
        assert spans["rl.group"].span == context.span
        assert all(spans[name].parent == context.span for name in way)
        assert group.moments["leased"] <= group.moments["submitted"]
        tokens = sum(len(response.ids) for response in group.responses)
        assert spans["rl.sample"].attributes["gen_ai.usage.output_tokens"] == tokens
        assert spans["rl.train"].attributes["rl.loop.iteration"] == 1
    (adopted,) = traces[of_version(run, weights.lineage, 0).trace]
    assert (adopted.name, adopted.attributes["rl.policy.version"]) == ("rl.sync.adopt", 0)
    loop = {span.name: span for span in traces[of_version(run, "l", 1).trace]}
    assert set(loop) == {"rl.loop", "rl.train", "rl.sync.publish"}
    assert (loop["rl.loop"].start, loop["rl.loop"].end) == (loop["rl.train"].start, loop["rl.sync.publish"].end)
    assert loop["rl.train"].attributes["rl.train.batch_size"] == 2
    assert loop["rl.sync.publish"].attributes["rl.sync.bytes"] == 1000


def test_a_span_whose_block_fails_is_recorded_because_others_are_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    context = of_group("test", "0-1")
    with collector() as received:
        monkeypatch.setenv(ENDPOINT, received.endpoint)
        worker = tracing("rollout", "test")
        with (
            suppress(asyncio.CancelledError),
            worker.recorded("rl.sample", context, {"rl.group.uid": "0-1"}) as span,
        ):
            span.attributes["rl.sample.batch_size"] = 4
            raise asyncio.CancelledError
        worker.close()
    (found,) = received.traces()[context.trace]
    child = TraceContext.read(span.headers[HEADER])
    assert (found.name, child, found.parent) == ("rl.sample", TraceContext(context.trace, found.span), context.span)
    assert found.attributes == {"rl.group.uid": "0-1", "rl.sample.batch_size": 4, "error.type": "CancelledError"}


async def test_without_an_endpoint_requests_carry_nothing(
    start: Start, tmp_path: Path, tiny_model: Path, reward: httpx.ASGITransport
) -> None:
    seen: list[bool] = []

    class Listening(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            seen.append(HEADER in request.headers)
            return await reward.handle_async_request(request)

    async with start(recipe(), transport=Listening()) as bench:
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_model))
        bench.start()
        batch = await bench.take()
    assert seen
    assert not any(seen)
    assert all(set(group.moments) == {"leased", "submitted"} for group in batch.groups)
