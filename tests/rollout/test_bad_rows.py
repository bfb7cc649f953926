"""One bad row, engine answer or reward service costs that row at most; the worker and the run continue."""

import asyncio
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from golongrl.errors import InputError
from golongrl.rollout.groups import work
from golongrl.rollout.sglang.answers import Generation
from golongrl.rollout.sglang.errors import (
    EngineAbortedError,
    EngineProtocolError,
    EngineRefusedError,
    EngineUnavailableError,
)
from golongrl.rollout.sglang.http import failure
from rollout.harness import Rig, Start, publish, recipe, rig, write_rows

# Row 0 is the bad one.
FIRST = "0-0."


def spoil(bench: Rig, monkeypatch: pytest.MonkeyPatch, fail: Callable[[str], bool], error: Exception) -> list[str]:
    """Let the rig's engine raise `error` for the requests whose id `fail` picks; the ids it was asked for."""
    real, asked = bench.bench.engine.generate, []

    async def generate(prompt: Any, sampling: Any, *, rid: str, **options: Any) -> Generation:
        asked.append(rid)
        if fail(rid):
            raise error
        return await real(prompt, sampling, rid=rid, **options)

    monkeypatch.setattr(bench.bench.engine, "generate", generate)
    return asked


async def rejections(bench: Rig) -> dict[str, int]:
    """Why rows were rejected, once one was: the others may be done before it has had its tries."""
    async with asyncio.timeout(120):
        while not (rejected := (await bench.learner.queue.stats()).rejected_by):
            await asyncio.sleep(0.05)
    return dict(rejected)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (EngineProtocolError("generate: output_ids: -7 is not a token id in [0, 512)"), "engine_protocol"),
        (EngineRefusedError("POST /generate: 400: no", 400), "engine_refused"),
        (EngineAbortedError("generate 0-0.0000: the engine aborted it 3 times"), "engine_aborted"),
        (EngineUnavailableError("POST /generate: 500: broken"), "engine_failed"),
        (ValueError("token id 5000 is outside the model's vocabulary [0, 512)"), "unfit"),
    ],
)
async def test_a_row_that_always_fails_is_rejected_with_its_reason_and_the_run_goes_on(
    start: Start, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    async with start(recipe("queue.max_tries=2", "rollout.group_filter=false")) as bench:
        asked = spoil(bench, monkeypatch, lambda rid: rid.startswith(FIRST), error)
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_model))
        bench.start()
        assert [group.row for group in (await bench.take()).groups] == [1, 2]
        assert await rejections(bench) == {f"failed:{reason}": 1}
        released = partial(
            bench.bench.metrics.registry.get_sample_value, "golongrl_rollout_groups_released_total", {"reason": reason}
        )
        async with asyncio.timeout(120):
            while released() != 2:
                await asyncio.sleep(0.05)
        assert sum(rid.startswith(FIRST) for rid in asked) <= 2 * bench.bench.recipe.rollout.n


async def test_nonsense_quarantines_the_engine_until_it_answers_sense(
    start: Start, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is loaded again and tried with one token; no row is leased, and so none burned, before that is good."""
    monkeypatch.setattr("golongrl.rollout.backoff.LONGEST_S", 0.05)
    async with start(recipe("queue.max_tries=2", "rollout.group_filter=false")) as bench:
        broken = {"rows": True, "probe": True}
        nonsense = EngineProtocolError("generate: a log-prob is nan")
        asked = spoil(bench, monkeypatch, lambda rid: broken["probe" if rid.startswith("probe") else "rows"], nonsense)
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_model))
        bench.start()
        await bench.until(lambda: "not taken in 3 tries" in (bench.state.waiting_for or ""))
        assert "no valid token from version 0: generate: a log-prob is nan" in str(bench.state.quarantine)
        assert (await bench.learner.queue.stats()).leased == 0
        assert all(rid.startswith("probe") for rid in asked)
        broken["rows"] = broken["probe"] = False
        await bench.take()
        assert bench.state.quarantine is None


async def test_a_refused_row_costs_no_other_row_while_the_engine_samples(
    start: Start, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What else it samples continues, and its weights stay."""
    async with start(recipe("queue.max_tries=2", "rollout.group_filter=false")) as bench:
        refusal = EngineRefusedError("POST /generate: 400: no", 400)
        asked = spoil(bench, monkeypatch, lambda rid: rid.startswith(FIRST), refusal)
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_model))
        bench.start()
        assert [group.row for group in (await bench.take()).groups] == [1, 2]
        assert await rejections(bench) == {"failed:engine_refused": 1}
        assert any(rid.startswith("probe") for rid in asked)
        value = bench.bench.metrics.registry.get_sample_value
        assert value("golongrl_rollout_engine_restarts_total") == 0
        assert bench.state.quarantine is None


async def test_an_engine_that_refuses_everything_is_quarantined(
    start: Start, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("golongrl.rollout.backoff.LONGEST_S", 0.05)
    # A row may be leased once more before its refusal is looked into.
    async with start(recipe("queue.max_tries=4", "rollout.group_filter=false")) as bench:
        # From its first row on.
        broken = {"rows": True, "probe": False}

        def fails(rid: str) -> bool:
            if rid.startswith("probe"):
                return broken["probe"]
            broken["probe"] = broken["rows"]
            return broken["rows"]

        spoil(bench, monkeypatch, fails, EngineRefusedError("POST /generate: 400: no", 400))
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_model))
        bench.start()
        await bench.until(lambda: "not taken in 3 tries" in (bench.state.waiting_for or ""))
        assert "no valid token from version 0: POST /generate: 400: no" in str(bench.state.quarantine)
        broken["rows"] = broken["probe"] = False
        assert [group.row for group in (await bench.take()).groups] == [0, 1]
        assert bench.state.quarantine is None


async def test_rows_of_an_engine_that_cannot_be_had_are_not_to_blame(
    start: Start, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start(recipe("queue.max_tries=1", "rollout.group_filter=false")) as bench:
        asked: list[str] = []
        wrong_key = failure("POST /generate", 401, "no")
        asked = spoil(bench, monkeypatch, lambda rid: len(asked) < 8 and not rid.startswith("probe"), wrong_key)
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_model))
        bench.start()
        assert [group.row for group in (await bench.take()).groups] == [0, 1]
        assert (await bench.learner.queue.stats()).rejected_by == {}


def answering(status: int, content: bytes) -> httpx.MockTransport:
    return httpx.MockTransport(lambda _: httpx.Response(status, content=content))


async def test_a_group_that_the_reward_service_refuses_costs_that_group(
    start: Start, tmp_path: Path, tiny_model: Path, reward: httpx.ASGITransport
) -> None:
    async def picky(request: httpx.Request) -> httpx.Response:
        if request.method == "POST" and json.loads(request.content)["items"][0]["id"].startswith(FIRST):
            return httpx.Response(413, json={"detail": "an item is too large"})
        return await reward.handle_async_request(request)

    async with start(
        recipe("queue.max_tries=2", "rollout.group_filter=false"), transport=httpx.MockTransport(picky)
    ) as bench:
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_model))
        bench.start()
        assert [group.row for group in (await bench.take()).groups] == [1, 2]
        assert await rejections(bench) == {"failed:reward_refused": 1}


def others(answer: bytes) -> httpx.Response:
    """The scores of another group."""
    results = [{**result, "id": f"9-{result['id']}"} for result in json.loads(answer)["results"]]
    return httpx.Response(200, json={"results": results})


def half(answer: bytes) -> httpx.Response:
    results = json.loads(answer)["results"]
    return httpx.Response(200, json={"results": results[: len(results) // 2]})


def status(code: int) -> Callable[[bytes], httpx.Response]:
    """What something between worker and service answers."""
    return lambda _answer: httpx.Response(code, headers={"location": "http://login/"})


NOT_FOUND = status(404)
NOT_OF_THE_GROUP = [others, half, *map(status, (302, 401, 403, 404, 405, 407, 418, 451, 500, 501, 508))]


@pytest.mark.parametrize("always", [None, others, status(500), NOT_FOUND], ids=["once", "others", "500", "404"])
async def test_what_is_no_answer_to_the_group_costs_that_group_at_most(
    start: Start,
    tmp_path: Path,
    tiny_model: Path,
    reward: httpx.ASGITransport,
    monkeypatch: pytest.MonkeyPatch,
    always: Callable[[bytes], httpx.Response] | None,
) -> None:
    """From a service that has scored other groups: one that never did is of another version, and ends the worker; so
    does one that refuses it for good."""
    monkeypatch.setattr(work, "_PAUSE_S", 0.05)
    if always:
        monkeypatch.setattr(work, "_REWARD_SHARE", 0.0)
    wrong = list(NOT_OF_THE_GROUP)
    others_done = asyncio.Event()

    async def mixed_up(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":  # of its health
            return await reward.handle_async_request(request)
        first = json.loads(request.content)["items"][0]["id"].startswith(FIRST)
        if first:
            await others_done.wait()
        answer = await reward.handle_async_request(request)
        if not first:
            others_done.set()
        elif always or wrong:
            return (always or wrong.pop(0))(await answer.aread())
        return answer

    made = recipe("queue.max_tries=1", "rollout.group_filter=false")
    async with start(made, transport=httpx.MockTransport(mixed_up)) as bench:
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_model))
        task = bench.start()
        if always is NOT_FOUND:
            with pytest.raises(InputError, match="HTTP 404"):
                await task
            bench.tasks.clear()
            return
        assert [group.row for group in (await bench.take()).groups] == ([1, 2] if always else [0, 1])
        if always:
            assert await rejections(bench) == {"failed:reward_protocol": 1}
        else:
            assert wrong == []
            assert (await bench.learner.queue.stats()).redone_by == {}


async def test_a_reward_service_that_does_not_know_this_worker_ends_it(
    start: Start, tmp_path: Path, tiny_model: Path
) -> None:
    async with start(recipe(), transport=answering(401, b'{"detail": "set GOLONGRL_REWARD_TOKEN"}')) as bench:
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_model))
        task = bench.start()
        with pytest.raises(InputError, match="GOLONGRL_REWARD_TOKEN"):
            await task
        bench.tasks.clear()
        assert (await bench.learner.queue.stats()).leased == 0


async def test_a_reward_service_that_hangs_is_named_and_no_lease_is_lost_to_it(
    start: Start, tmp_path: Path, tiny_model: Path
) -> None:
    """Frozen, it accepts connections and answers nothing: groups go back before the queue calls them stalled."""

    async def frozen(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("no answer", request=request)

    made = recipe("queue.stall_s=12", "queue.lease_s=60", "queue.max_tries=1", "reward.deadline_s=0.5")
    async with start(made, transport=httpx.MockTransport(frozen)) as bench:
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_model))
        bench.start()
        await bench.until(lambda: "reward service http://reward" in (bench.state.waiting_for or ""))
        assert bench.state.phase == "waiting"

        async def redone() -> dict[str, int]:
            return (await bench.learner.queue.stats()).redone_by

        while "released:reward_unavailable" not in (found := await redone()):
            await bench.until(lambda: True)
        assert set(found) == {"released:reward_unavailable"}
        assert (await bench.learner.queue.stats()).rejected_by == {}
        assert bench.state.quarantine is None


async def test_a_prompt_outside_the_vocabulary_costs_its_row_only(
    redis_url: str, run_name: str, engine_url: str, reward: httpx.ASGITransport, tmp_path: Path, tiny_model: Path
) -> None:
    folder = write_rows(tmp_path / "train", 64, prompt_ids=np.full(5, 5000, np.int32))
    made = recipe("queue.max_tries=1")
    async with rig(made, redis_url, run_name, folder, engine_url, reward) as bench:
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_model))
        bench.start()
        await bench.until(lambda: bench.state.phase == "idle")
        assert "the run is over" in str(bench.state.waiting_for)
        stats = await bench.learner.queue.stats()
        assert set(stats.rejected_by) == {"failed:unfit"}
        assert stats.stopped is not None
