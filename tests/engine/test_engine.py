"""The engine as callers see it: what it samples, what it reports of it, and what pauses and updates do to it."""

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from golongrl.engine import model_thread
from golongrl.engine.engine import CacheNotFlushedError
from golongrl.engine.model_thread import EngineDeadError
from golongrl.engine.scheduler import DuplicateRequestError, QueueFullError
from golongrl.engine.snapshot import RequestSnapshot
from golongrl.engine.weights import EngineWeightsError, load_model
from golongrl.telemetry import waits
from golongrl.telemetry.waits import PendingWait

from .conftest import Rig, forward_logprobs, request

PROMPTS = [[10, 11, 12, 13, 14], [20, 21], list(range(30, 77)), [5], [90, 91, 92]]
# Of a response that the test ends: it goes on for however long the test takes to come to that.
ENDLESS = 10**6


async def until_running(rig: Rig, tokens: int = 5, *, hold: bool = False) -> None:
    """Wait until every live request has some output; with `hold` the engine is then paused in place, before the next
    step."""

    def enough() -> bool:
        live = rig.engine.scheduler.live
        reached = bool(live) and all(len(each.output) >= tokens for each in live)
        if reached and hold:
            rig.engine.scheduler.pause("in_place")
        return reached

    async with asyncio.timeout(60):
        while not await rig.engine.call(enough):
            await asyncio.sleep(0)


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.0])
async def test_logprobs_equal_a_plain_forward_pass_in_a_ragged_batch(rig, temperature: float) -> None:
    mine = rig()
    requests = [
        request(f"r{i}", prompt, max_new_tokens=6 + 9 * i, temperature=temperature, seed=i)
        for i, prompt in enumerate(PROMPTS)
    ]
    for asked, got in zip(requests, await mine.run(*requests), strict=True):
        assert len(got.output) == asked.sampling.max_new_tokens
        expected = forward_logprobs(mine.model, asked.prompt, got.output, temperature)
        assert got.logprobs == pytest.approx(expected, abs=1e-4)


async def test_responses_of_one_prompt_share_the_prefill_and_differ(rig) -> None:
    mine = rig()
    got = await mine.run(*(request(f"r{i}", PROMPTS[2], max_new_tokens=12, seed=i) for i in range(6)))
    assert [each.cached_tokens for each in got] == [0] + [len(PROMPTS[2])] * 5
    assert len({each.output for each in got}) == 6
    for each in got:
        assert each.logprobs == pytest.approx(forward_logprobs(mine.model, PROMPTS[2], each.output), abs=1e-4)


async def test_truncation_limits_what_is_drawn_but_not_the_reported_logprob(rig) -> None:
    mine = rig()
    free, greedy = await mine.run(
        request("k", PROMPTS[0], max_new_tokens=10, top_k=1, temperature=1.3),
        request("g", PROMPTS[0], max_new_tokens=10, temperature=0.0),
    )
    assert free.output == greedy.output
    assert free.logprobs == pytest.approx(forward_logprobs(mine.model, PROMPTS[0], free.output, 1.3), abs=1e-4)
    assert greedy.logprobs == pytest.approx(forward_logprobs(mine.model, PROMPTS[0], greedy.output), abs=1e-4)


async def test_a_seeded_request_draws_the_same_whatever_runs_beside_it(rig) -> None:
    mine = rig(max_batch=8)
    (alone,) = await mine.run(request("a", PROMPTS[0], max_new_tokens=30, seed=7))
    crowd = [request(f"c{i}", prompt, max_new_tokens=5 + 7 * i, seed=i) for i, prompt in enumerate(PROMPTS)]
    *_, beside = await mine.run(*crowd, request("a", PROMPTS[0], max_new_tokens=30, seed=7))
    assert beside.output == alone.output
    (other,) = await mine.run(request("a", PROMPTS[0], max_new_tokens=30, seed=8))
    assert other.output != alone.output


async def test_more_requests_than_slots_all_finish_in_order_of_arrival(rig) -> None:
    mine = rig(max_batch=2)
    requests = [request(f"r{i}", [i + 3], max_new_tokens=4 + i % 3, seed=i) for i in range(9)]
    got = await mine.run(*requests)
    assert [len(each.output) for each in got] == [4 + i % 3 for i in range(9)]
    first = [each.timeline.admitted for each in got]
    assert first == sorted(first)


async def test_a_stop_token_ends_the_response_and_stays_in_it(rig) -> None:
    mine = rig()
    (free,) = await mine.run(request("a", PROMPTS[0], max_new_tokens=20, seed=3))
    stop = free.output[6]
    (ended,) = await mine.run(request("b", PROMPTS[0], max_new_tokens=20, seed=3, stop_token_ids=frozenset({stop})))
    assert ended.output == free.output[: free.output.index(stop) + 1]
    assert (ended.finish.type, ended.finish.matched) == ("stop", stop)


async def test_min_new_tokens_keeps_stop_tokens_from_being_drawn(rig) -> None:
    mine = rig()
    everything_but_one = frozenset(range(512)) - {17}
    (got,) = await mine.run(
        request("a", PROMPTS[0], max_new_tokens=9, min_new_tokens=4, stop_token_ids=everything_but_one)
    )
    assert got.output[:4] == (17,) * 4
    assert got.finish.type == "stop" or got.output == (17,) * 9


async def test_streaming_gives_every_token_cumulatively(rig) -> None:
    mine = rig()
    await mine.run(request("a", PROMPTS[0], max_new_tokens=5), stream=True)
    assert [len(chunk.output) for chunk in mine.chunks] == [1, 2, 3, 4, 5]
    assert [chunk.finish is None for chunk in mine.chunks] == [True] * 4 + [False]


async def test_a_stream_interval_thins_the_stream(rig) -> None:
    mine = rig()
    await mine.run(request("a", PROMPTS[0], max_new_tokens=8, stream_interval=3), stream=True)
    assert [len(chunk.output) for chunk in mine.chunks] == [1, 4, 7, 8]


async def test_abort_gives_what_there_is_and_frees_the_slot(rig) -> None:
    mine = rig(max_batch=1)
    running = asyncio.create_task(mine.run(request("a", PROMPTS[0], max_new_tokens=ENDLESS)))
    await until_running(mine)
    queued = asyncio.create_task(mine.run(request("b", PROMPTS[1])))
    await mine.engine.call(lambda: None)
    await mine.engine.abort("a")
    (partial,) = await running
    assert partial.finish.type == "abort"
    assert len(partial.output) >= 5
    assert partial.logprobs == pytest.approx(forward_logprobs(mine.model, PROMPTS[0], partial.output), abs=1e-4)
    (other,) = await queued
    assert other.finish.type == "length"
    assert await mine.engine.call(lambda: mine.engine.generator.size) == 0


async def test_aborting_a_waiting_request_gives_an_empty_answer(rig) -> None:
    mine = rig()
    await mine.engine.pause("in_place")
    waiting = asyncio.create_task(mine.run(request("a", PROMPTS[0])))
    while not mine.engine.scheduler.waiting:
        await asyncio.sleep(0)
    await mine.engine.abort("a")
    (got,) = await waiting
    assert (got.output, got.finish.message, got.timeline.admitted) == ((), "Abort in waiting queue", None)


async def test_leaving_early_aborts(rig) -> None:
    mine = rig()
    task = asyncio.create_task(mine.run(request("a", PROMPTS[0], max_new_tokens=ENDLESS)))
    await until_running(mine)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await mine.engine.call(lambda: mine.engine.scheduler.live) == []
    assert await mine.engine.call(lambda: mine.engine.generator.size) == 0


def spliced_logprobs(old, new, prompt: list[int], got: RequestSnapshot) -> list[float]:
    """What a retracted response must report: each span as the weights of its version see the whole prefix."""
    models = {"0": old, "1": new}
    return [
        value
        for span in got.spans
        for value in forward_logprobs(models[span.version], prompt, got.output)[span.start : span.end]
    ]


async def paused_update(mine: Rig, mode: str, folder: Path, **options: bool) -> None:
    await mine.engine.pause(mode)
    await mine.engine.update_from_disk(folder, "1", **{"flush": True, "abort_all": False, **options})
    await mine.engine.resume()


async def test_retract_recomputes_the_cache_with_the_new_weights(rig, loaded, tiny_model_next: Path) -> None:
    mine = rig()
    requests = [request(f"r{i}", prompt, max_new_tokens=60, seed=i) for i, prompt in enumerate(PROMPTS[:3])]
    task = asyncio.create_task(mine.run(*requests))
    await until_running(mine, hold=True)
    await paused_update(mine, "retract", tiny_model_next)
    new, _ = load_model(tiny_model_next)
    for prompt, got in zip(PROMPTS, await task, strict=False):
        assert [span.version for span in got.spans] == ["0", "1"]
        assert (got.spans[0].start, got.spans[0].end, got.spans[1].end) == (0, got.spans[1].start, 60)
        assert (got.version, got.retractions) == ("1", 1)
        assert got.logprobs == pytest.approx(spliced_logprobs(loaded[0], new, prompt, got), abs=1e-4)


async def test_in_place_keeps_the_old_cache_under_the_new_weights(rig, loaded, tiny_model_next: Path) -> None:
    mine = rig()
    task = asyncio.create_task(mine.run(request("a", PROMPTS[2], max_new_tokens=60, seed=1)))
    await until_running(mine, hold=True)
    await paused_update(mine, "in_place", tiny_model_next, flush=False)
    (got,) = await task
    new, _ = load_model(tiny_model_next)
    old_end = got.spans[0].end
    assert [(span.version, span.start) for span in got.spans] == [("0", 0), ("1", old_end)]
    assert got.retractions == 0
    recomputed = spliced_logprobs(loaded[0], new, PROMPTS[2], got)
    assert got.logprobs[:old_end] == pytest.approx(recomputed[:old_end], abs=1e-4)
    # Keys and values of the prompt are still the old model's, so these are not what a fresh pass would give.
    assert got.logprobs[old_end:] != pytest.approx(recomputed[old_end:], abs=1e-3)


@pytest.mark.parametrize("key", [None, "one/0"])
async def test_a_prompt_sampled_before_an_in_place_update_is_computed_again(
    rig, loaded, tiny_model_next: Path, key: str | None
) -> None:
    """With the key of the older version too, and while its own sequence still holds the older keys and values."""
    mine, prompt = rig(), PROMPTS[2]
    (before,) = await mine.run(replace(request("before", prompt), extra_key=key))
    held = asyncio.create_task(mine.run(replace(request("held", prompt, max_new_tokens=60), extra_key=key)))
    await until_running(mine, hold=True)
    await paused_update(mine, "in_place", tiny_model_next, flush=False)
    (after,) = await mine.run(replace(request("after", prompt), extra_key=key))
    assert (before.cached_tokens, after.cached_tokens) == (0, 0)
    assert [span.version for span in after.spans] == ["1"]
    new, _ = load_model(tiny_model_next)
    assert after.logprobs == pytest.approx(forward_logprobs(new, prompt, after.output), abs=1e-4)
    assert [span.version for span in (await held)[0].spans] == ["0", "1"]


async def test_in_place_with_flush_is_refused_after_the_weights_have_changed(rig, tiny_model_next: Path) -> None:
    mine = rig()
    task = asyncio.create_task(mine.run(request("a", PROMPTS[0], max_new_tokens=40)))
    await until_running(mine, hold=True)
    before = await mine.engine.checksums()
    await mine.engine.pause("in_place")
    with pytest.raises(CacheNotFlushedError):
        await mine.engine.update_from_disk(tiny_model_next, "1", flush=True, abort_all=False)
    assert await mine.engine.checksums() != before
    assert mine.engine.scheduler.version == "0"
    assert not await mine.engine.flush()
    await mine.engine.resume()
    (got,) = await task
    assert [span.version for span in got.spans] == ["0"]


async def test_an_unpaused_update_waits_for_open_requests_and_holds_new_ones(rig, tiny_model_next: Path) -> None:
    mine = rig()
    first = asyncio.create_task(mine.run(request("a", PROMPTS[0], max_new_tokens=200)))
    await until_running(mine)
    update = asyncio.create_task(mine.engine.update_from_disk(tiny_model_next, "1", flush=True, abort_all=False))
    while mine.engine._open.is_set():
        await asyncio.sleep(0)
    second = asyncio.create_task(mine.run(request("b", PROMPTS[0], max_new_tokens=4)))
    await update
    (old,), (new,) = await first, await second
    assert [span.version for span in old.spans] == ["0"]
    assert len(old.output) == 200
    assert [span.version for span in new.spans] == ["1"]


async def test_an_update_that_aborts_does_not_wait(rig, tiny_model_next: Path) -> None:
    mine = rig()
    task = asyncio.create_task(mine.run(request("a", PROMPTS[0], max_new_tokens=ENDLESS)))
    await until_running(mine)
    await mine.engine.update_from_disk(tiny_model_next, "1", flush=True, abort_all=True)
    (got,) = await task
    assert got.finish.type == "abort"
    assert mine.engine.scheduler.version == "1"


async def test_a_bad_folder_changes_nothing(rig, tmp_path: Path) -> None:
    mine = rig()
    before = await mine.engine.checksums()
    with pytest.raises(EngineWeightsError, match=r"no \*.safetensors"):
        await mine.engine.update_from_disk(tmp_path, "1", flush=True, abort_all=False)
    assert await mine.engine.checksums() == before
    assert mine.engine.scheduler.version == "0"


async def test_pause_abort_ends_everything_and_later_requests_wait(rig) -> None:
    mine = rig()
    tasks = [asyncio.create_task(mine.run(request(f"r{i}", PROMPTS[i], max_new_tokens=ENDLESS))) for i in range(3)]
    await until_running(mine)
    await mine.engine.pause("abort")
    assert [(await task)[0].finish.type for task in tasks] == ["abort"] * 3
    late = asyncio.create_task(mine.run(request("late", PROMPTS[0])))
    while not mine.engine.scheduler.waiting:
        await asyncio.sleep(0)
    assert await mine.engine.flush()
    await mine.engine.resume()
    assert (await late)[0].finish.type == "length"


async def test_a_live_id_is_refused_and_a_full_queue_too(rig) -> None:
    mine = rig(max_batch=1, max_queue=1)
    await mine.engine.pause("in_place")
    first = asyncio.create_task(mine.run(request("a", PROMPTS[0])))
    while not mine.engine.scheduler.waiting:
        await asyncio.sleep(0)
    with pytest.raises(DuplicateRequestError):
        await mine.run(request("a", PROMPTS[1]))
    with pytest.raises(QueueFullError):
        await mine.run(request("b", PROMPTS[1]), request("c", PROMPTS[1]))
    await mine.engine.resume()
    # The refused duplicate has not taken the first one with it.
    assert (await first)[0].finish.type == "length"
    await mine.run(request("a", PROMPTS[0]))


async def test_a_failing_model_thread_is_told_to_everyone(rig) -> None:
    died: list[bool] = []
    mine = rig(on_death=lambda: died.append(True))
    task = asyncio.create_task(mine.run(request("a", PROMPTS[0], max_new_tokens=ENDLESS)))
    await until_running(mine)
    # A token id outside the vocabulary cannot pass the API; here it stands for any failure of the forward pass.
    await mine.engine.call(lambda: mine.engine.scheduler.running[0].output.append(10**6))
    with pytest.raises(EngineDeadError):
        await task
    with pytest.raises(EngineDeadError):
        await mine.engine.flush()
    assert not mine.engine.alive
    await mine.engine.stop()
    assert died == [True]


async def test_a_command_whose_caller_is_gone_harms_nobody(rig) -> None:
    """Cancelled before the thread came to it: it is not run, and the thread lives."""
    mine = rig()
    release = threading.Event()
    busy = asyncio.create_task(mine.engine.call(release.wait))
    ran: list[int] = []
    gone = asyncio.create_task(mine.engine.call(lambda: ran.append(1)))
    await asyncio.sleep(0)
    gone.cancel()
    # Awaited before the thread is let go: the loop passes a cancellation on to the thread's future in its next turn.
    with pytest.raises(asyncio.CancelledError):
        await gone
    release.set()
    assert await busy
    assert mine.engine.alive
    assert await mine.engine.call(lambda: "well") == "well"
    assert not ran


async def test_it_says_what_it_waits_for(rig, tiny_model_next: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_thread, "SHORT_S", 0.0)
    monkeypatch.setattr(waits, "SHORT_S", 0.0)
    mine = rig()
    assert mine.engine.waits() == []
    running = asyncio.create_task(mine.run(request("a", PROMPTS[0], max_new_tokens=ENDLESS)))
    await until_running(mine)
    updating = asyncio.create_task(mine.engine.update_from_disk(tiny_model_next, "1", flush=True, abort_all=False))

    async def until(what: str, on: str) -> PendingWait:
        async with asyncio.timeout(60):
            while True:
                for wait in mine.engine.waits():
                    if what in wait.what:
                        assert wait.on == on
                        return wait
                await asyncio.sleep(0)

    await until("its open requests to end", "engine")
    step = await until("its model to end a step", "engine")
    assert (step.count, step.unit) == (1, "request")
    await mine.engine.pause("in_place")
    assert "paused, in_place" in (await until("to let it continue", "rollout")).what
    await mine.engine.abort()
    await asyncio.gather(running, updating)
    await mine.engine.resume()
    assert mine.engine.waits() == []
