"""The worker's loop against a real queue, a real engine and a real reward service, the learner played by the test."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from golongrl.data import Prepared
from golongrl.errors import InputError
from golongrl.queue import Lease, Refusal, SampleQueue, SettingsMismatchError, WeightsRef
from golongrl.rollout.groups.progress import LiveGroup
from golongrl.rollout.sglang.answers import ModelInfo
from golongrl.rollout.sglang.errors import EngineUnavailableError
from golongrl.rollout.weights.adopt import Confirmed
from rollout.harness import Rig, Start, publish, recipe, rig, versions, write_rows


async def test_groups_come_out_complete_and_from_the_announced_weights(
    start: Start, tmp_path: Path, tiny_model: Path, tiny_model_next: Path
) -> None:
    made = recipe()
    async with start(made) as bench:
        bench.start()
        await bench.until(lambda: "announced" in (bench.state.waiting_for or ""))
        assert bench.state.groups == 0

        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_model))
        first = await bench.take()
        assert [group.row for group in first.groups] == [0, 1]
        for group in first.groups:
            assert versions(group) == {0}
            assert (group.task, group.task_key, group.worker) == ("T1", "EM", "w0")
            assert group.prompt_ids.tolist() == bench.bench.data.row(group.row).prompt_ids.tolist()
            assert len(group.responses) == 4
            assert len({response.ids.tobytes() for response in group.responses}) == 4
            for response in group.responses:
                assert 0 < len(response.ids) <= 24
                assert response.status == "scored"
                assert response.finish_reason in ("stop", "length")
            assert set(group.timings) == {"generate_s", "score_s"}

        await bench.until(lambda: bench.state.kv_use is not None)
        assert 0 <= float(bench.state.heartbeat("")["kv_use"]) <= 1

        # One batch may be in work ahead of version 0, not two.
        await bench.until(lambda: bench.state.groups == 0 and (bench.state.waiting_for or "").startswith("full"))
        stats = await bench.learner.queue.stats()
        assert (stats.leased, stats.ready) == (0, 2)

        await bench.learner.finish(publish(tmp_path, 1, tiny_model_next))
        await bench.until(lambda: bench.state.engine_version == 1)
        assert versions((await bench.take()).groups[0]) == {0}
        await bench.learner.finish(publish(tmp_path, 2, tiny_model))
        assert all(min(versions(group)) >= 1 for group in (await bench.take()).groups)

        async with asyncio.timeout(60):  # it is told now and then
            while (presence := (await bench.learner.queue.services())[0]).fields["engine_version"] not in ("1", "2"):
                await asyncio.sleep(0.02)
        assert (presence.service, presence.id) == ("rollout", "w0")
        assert len(await bench.learner.queue.services()) == 1


async def test_a_row_done_again_gives_the_same_responses(start: Start, tmp_path: Path, tiny_model: Path) -> None:
    """Seeds follow from run seed, row and index: not from the worker, the lease or the engine's history."""
    weights = publish(tmp_path, 0, tiny_model)
    sampled = []
    for run in ("a", "b"):
        made = recipe("rollout.group_filter=false", "rollout.concurrent_groups=1")
        async with start(made, run=run, worker=f"worker-{run}") as bench:
            await bench.learner.queue.announce(bench.learner.fence, weights)
            bench.start()
            batch = await bench.take()
            sampled.append([response.ids.tolist() for group in batch.groups for response in group.responses])
    assert sampled[0] == sampled[1]


async def test_a_group_waits_for_the_reward_service_and_keeps_its_tokens(
    start: Start, tmp_path: Path, tiny_model: Path, reward: httpx.ASGITransport
) -> None:
    down = asyncio.Event()

    class Flaky(httpx.AsyncBaseTransport):
        calls = 0

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            self.calls += 1
            if not down.is_set():
                raise httpx.ConnectError("refused", request=request)
            return await reward.handle_async_request(request)

    async with start(recipe(), transport=Flaky()) as bench:
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_model))
        bench.start()
        await bench.until(lambda: "reward service" in (bench.state.waiting_for or ""))
        await asyncio.sleep(0.6)  # the loop looks again, and says the same
        assert "reward service http://reward: gave up" in str(bench.state.waiting_for)
        assert bench.bench.metrics.registry.get_sample_value("golongrl_rollout_waiting", {"reason": "reward"}) == 1
        down.set()
        batch = await bench.take()
        assert all(response.status == "scored" for group in batch.groups for response in group.responses)
        stats = await bench.learner.queue.stats()
        assert sum(stats.redone_by.values()) == 0


async def test_a_stop_gives_back_what_cannot_be_finished(start: Start, tmp_path: Path, tiny_model: Path) -> None:
    async with start(recipe("rollout.max_response_tokens=900"), grace_s=0.0) as bench:
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_model))
        task = bench.start()
        await bench.until(lambda: bench.state.groups == 2)
        bench.worker.stop()
        await task
        bench.tasks.clear()
        stats = await bench.learner.queue.stats()
        assert (stats.leased, stats.returned) == (0, 2)
        assert stats.redone_by == {"released:stopped": 2}


async def test_a_stop_finishes_what_can_be_finished(start: Start, tmp_path: Path, tiny_model: Path) -> None:
    async with start(recipe("rollout.group_filter=false"), grace_s=60.0) as bench:
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_model))
        task = bench.start()
        await bench.until(lambda: bench.state.groups == 2)
        bench.worker.stop()
        await task
        bench.tasks.clear()
        stats = await bench.learner.queue.stats()
        assert stats.leased == stats.returned == 0
        assert stats.ready == bench.state.submitted >= 2


@pytest.mark.parametrize("call", ["lease", "submit"])
async def test_a_stop_leaves_no_lease_behind_whatever_the_queue_is_being_told(
    start: Start, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    async with start(recipe("rollout.group_filter=false"), grace_s=0.0) as bench:
        queue, asked = bench.bench.queue, asyncio.Event()
        real = getattr(queue, call)

        async def unanswered(*args: Any, **named: Any) -> Any:
            if asked.is_set():
                return await real(*args, **named)
            if call == "lease":
                await real(*args, **named)
            asked.set()
            return await asyncio.get_running_loop().create_future()

        monkeypatch.setattr(queue, call, unanswered)
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_model))
        task = bench.start()
        await bench.until(asked.is_set)
        bench.worker.stop()
        await task
        bench.tasks.clear()
        stats = await bench.learner.queue.stats()
        assert stats.leased == 0
        assert stats.redone_by["released:stopped"] >= 1


async def test_a_group_is_given_up_once_and_for_the_first_reason(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second cancellation would interrupt the giving back of the row."""
    given_back: list[str] = []

    async def work(kind: object, item: Lease, row: object, live: LiveGroup, held: Confirmed) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)  # the engine is told
            live.ending = True
            await asyncio.sleep(0.01)  # the queue is told
            given_back.append(live.give_back)
            raise

    monkeypatch.setattr("golongrl.rollout.groups.leases.work", work)
    async with start(recipe()) as bench, asyncio.TaskGroup() as tasks:
        training = bench.worker.training
        lease = await bench.bench.queue.lease("w0", 0)
        assert isinstance(lease, Lease)
        held = Confirmed(WeightsRef(0, "/v0", "first", ""), ModelInfo("/v0", "0"), 512)
        await training.begin(tasks, lease, held)
        for reason in ("engine_lost", "too_stale", "too_stale"):
            training.drop(reason, [lease.uid])
            await asyncio.sleep(0.004)
        await training.finish(grace_s=5.0)
    assert given_back == ["engine_lost"]


async def ends_with_one_line(bench: Rig, line: str, kind: type[Exception] = InputError) -> None:
    """The worker ends with an error, and holds no lease."""
    task = bench.start()
    with pytest.raises(kind, match=line):
        await asyncio.wait_for(task, 60)
    bench.tasks.clear()
    assert (await bench.learner.queue.stats()).leased == 0


async def test_a_reward_service_of_another_version_ends_the_worker_with_one_line(
    start: Start, tmp_path: Path, tiny_model: Path
) -> None:
    other = httpx.MockTransport(lambda _: httpx.Response(200, json={"scores": []}))
    async with start(recipe(), transport=other) as bench:
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_model))
        await ends_with_one_line(bench, "its answer is not a scoring result")


async def test_other_data_than_the_learners_ends_the_worker_with_one_line(
    redis_url: str, run_name: str, engine_url: str, reward: httpx.ASGITransport, tmp_path: Path, tiny_model: Path
) -> None:
    short = write_rows(tmp_path / "train", rows=1)
    async with rig(recipe(), redis_url, run_name, short, engine_url, reward) as bench:
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_model))
        await ends_with_one_line(bench, "row 1 of 1: this worker's --data is not the learner's")


async def test_data_that_were_prepared_again_end_the_worker_with_one_line(
    redis_url: str, run_name: str, engine_url: str, reward: httpx.ASGITransport, tmp_path: Path, tiny_model: Path
) -> None:
    made = recipe()
    then = Prepared.open(write_rows(tmp_path / "then"))
    now = write_rows(tmp_path / "now", ground_truth={"golden_label": "y"})
    async with rig(made, redis_url, run_name, now, engine_url, reward, dealt=then) as bench:
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_model))
        await ends_with_one_line(bench, "has other data than this worker reads", SettingsMismatchError)


async def test_when_the_run_is_over_the_worker_says_so_and_idles(
    start: Start, tmp_path: Path, tiny_model: Path
) -> None:
    async with start(recipe()) as bench:
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_model))
        await bench.learner.queue.stop(bench.learner.fence, "complete", "all steps are done")
        bench.start()
        await bench.until(lambda: bench.state.phase == "idle")
        assert "all steps are done" in str(bench.state.waiting_for)


async def test_a_second_worker_of_the_same_name_ends_the_first(
    start: Start, tmp_path: Path, tiny_model: Path, redis_url: str, run_name: str
) -> None:
    """Two engines under one id would take each other's leases away for ever."""
    async with start(recipe()) as bench, SampleQueue.from_url(redis_url, run_name) as twin:
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_model))
        task = bench.start()
        await bench.until(lambda: bench.state.submitted)  # it has leased before the twin comes
        assert isinstance(await twin.lease("w0", 0, lineage="first"), Lease | Refusal)
        with pytest.raises(InputError, match="give every worker an id of its own"):
            await asyncio.wait_for(task, 240)
        bench.tasks.clear()


async def test_a_worker_may_start_before_its_run_is_set_up(
    redis_url: str, run_name: str, rows: Path, engine_url: str, reward: httpx.ASGITransport
) -> None:
    async with rig(recipe(), redis_url, run_name, rows, engine_url, reward, created=False) as bench:
        bench.start()
        await bench.until(lambda: bench.state.waiting_for == "no weights have been announced")


async def test_an_engine_that_fails_every_group_is_asked_ever_less_often(
    start: Start, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers, it names the right weights, and it cannot generate: rows must not spin through the queue."""
    async with start(recipe()) as bench:
        real, tries = bench.bench.engine.generate, []

        async def broken(prompt, sampling, *, rid, **options):
            tries.append(rid)
            if len(tries) > 16:
                return await real(prompt, sampling, rid=rid, **options)
            raise EngineUnavailableError("POST /generate: 500: the model thread has failed")

        monkeypatch.setattr(bench.bench.engine, "generate", broken)
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_model))
        bench.start()
        await bench.until(lambda: "failed" in (bench.state.waiting_for or ""))
        assert bench.state.groups == 0
        assert len((await bench.take()).groups) == 2
