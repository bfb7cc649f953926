"""The worker's loop against a real queue, a real engine and a real reward service, the learner played by the test."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from golongrl.broadcast.process import SenderProcess
from golongrl.errors import InputError
from golongrl.queue import Group, Lease, Refusal, SampleQueue, WeightsRef
from golongrl.recipe import Recipe
from golongrl.rollout.errors import EngineUnavailable
from rollout.harness import Rig, publish, recipe, rig
from support.sender import hold

Start = Callable[..., AbstractAsyncContextManager[Rig]]


@pytest.fixture
def start(
    redis_url: str, run_name: str, rows: Path, engine_url: str, reward: httpx.ASGITransport
) -> Callable[..., AbstractAsyncContextManager[Rig]]:
    """`async with start(recipe, **config) as rig`: a rig on this test's own run and engine."""

    def begin(made: Recipe, *, run: str = "", transport: httpx.AsyncBaseTransport | None = None, **config):
        return rig(made, redis_url, run_name + run, rows, engine_url, transport or reward, **config)

    return begin


def versions(group: Group) -> set[int]:
    return {span.version for response in group.responses for span in response.version_spans}


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


async def test_an_engine_that_claims_the_version_is_loaded_all_the_same(
    start: Start, tmp_path: Path, tiny_model_next: Path
) -> None:
    """A restarted engine may carry any name; only weights that this worker loaded count."""
    async with start(recipe()) as bench:
        await bench.engine.post("/update_weight_version", json={"new_version": "0"})
        before = (await bench.engine.post("/weights_checker", json={"action": "checksum"})).json()["ranks"][0]
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_model_next))
        bench.start()
        await bench.take()
        after = (await bench.engine.post("/weights_checker", json={"action": "checksum"})).json()["ranks"][0]
        assert before["checksums"] != after["checksums"]


LONG = ("rollout.max_response_tokens=900", "queue.max_staleness=2", "rollout.group_filter=false", "rollout.n=2")


@pytest.mark.parametrize("mode", ["in_place", "retract", "abort", "drain"])
async def test_new_weights_reach_groups_in_flight_as_the_recipe_says(
    start: Start, tmp_path: Path, tiny_model: Path, tiny_model_next: Path, mode: str
) -> None:
    made = recipe(f"rollout.adoption={mode}", *LONG)
    async with start(made) as bench:
        queue, fence = bench.learner.queue, bench.learner.fence
        await queue.announce(fence, publish(tmp_path, 0, tiny_model))
        bench.start()

        def in_mid_flight() -> bool:
            return len(bench.worker.groups) == 2 and all(min(live.tokens) > 0 for live in bench.worker.groups)

        await bench.until(in_mid_flight)
        # Held while the announcement travels, so that it arrives in mid-flight on however fast a machine.
        await bench.engine.post("/pause_generation", json={"mode": "in_place"})
        await queue.announce(fence, publish(tmp_path, 1, tiny_model_next))
        if mode == "drain":
            await bench.until(lambda: "groups in flight, before version 1" in (bench.state.waiting_for or ""))
            await bench.engine.post("/continue_generation", json={})
        await bench.until(lambda: bench.state.engine_version == 1)
        batch = await bench.take()
        seen = [versions(group) for group in batch.groups]
        if mode == "drain":
            assert seen == [{0}, {0}]
        elif mode == "abort":
            assert any(1 in group for group in seen)
            assert all(len(response.version_spans) == 1 for group in batch.groups for response in group.responses)
        else:
            assert {0, 1} in seen
        for group in batch.groups:
            assert all(response.finish_reason in ("stop", "length") for response in group.responses)


async def test_an_unreadable_store_is_waited_for(start: Start, tmp_path: Path, tiny_model: Path) -> None:
    async with start(recipe(), adoption_attempts=1) as bench:
        missing = WeightsRef(0, str(tmp_path / "v0"), lineage="first", checksum="")
        await bench.learner.queue.announce(bench.learner.fence, missing)
        bench.start()
        await bench.until(lambda: bench.worker._tries.missed >= 2)
        assert "is the weight store mounted here?" in str(bench.state.waiting_for)
        assert bench.state.phase == "waiting"
        assert bench.state.quarantine is None
        assert (await bench.learner.queue.stats()).leased == 0
        publish(tmp_path, 0, tiny_model)
        await bench.take()


async def test_a_sender_that_cannot_send_is_waited_for(
    start: Start, sender: SenderProcess, tmp_path: Path, tiny_model: Path, tiny_model_next: Path
) -> None:
    """However long it takes: at eta 0 there is no other version before this engine has this one."""
    support = publish(tmp_path, 0, tiny_model)
    async with start(recipe(), adoption_attempts=1) as bench:
        hold(sender, tiny_model_next, 7)
        ref = replace(support, source=sender.source)
        await bench.learner.queue.announce(bench.learner.fence, ref)
        bench.start()
        await bench.until(lambda: bench.worker._tries.missed >= 3)
        assert "held is version 7" in str(bench.state.waiting_for)
        assert (bench.state.phase, bench.state.quarantine) == ("waiting", None)
        # Announced once: nothing but the sender changes.
        hold(sender, tiny_model, 0)
        await bench.take()
        assert bench.state.engine_version == 0
        # The run ends, and the sender with it, before this engine had the last version.
        await bench.learner.finish(replace(ref, version=1))
        await bench.until(lambda: bench.state.phase == "waiting" and "version 1" in str(bench.state.waiting_for))
        sender.close()
        await bench.learner.queue.stop(bench.learner.fence, "complete", "1 steps")
        await bench.until(lambda: bench.state.phase == "idle")


async def test_weights_that_read_back_wrong_are_never_sampled_from(
    start: Start, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start(recipe(), adoption_attempts=2) as bench:
        engine = bench.bench.engine
        update = engine.update_from_disk

        async def under_another_name(path: str, version: str, *, flush_cache: bool) -> None:
            await update(path, "elsewhere", flush_cache=flush_cache)

        monkeypatch.setattr(engine, "update_from_disk", under_another_name)
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_model))
        bench.start()
        await bench.until(lambda: "newer weights than version 0" in (bench.state.waiting_for or ""))
        assert "reads back 'elsewhere'" in str(bench.state.quarantine)
        assert (await bench.learner.queue.stats()).leased == 0
        assert (await bench.engine.get("/ready")).status_code == 200, "the engine must not be left paused"


async def test_an_engine_whose_weights_change_behind_the_worker_is_loaded_again(
    start: Start, tmp_path: Path, tiny_model: Path
) -> None:
    async with start(recipe()) as bench:
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_model))
        bench.start()
        await bench.take()
        await bench.engine.post("/update_weight_version", json={"new_version": "stranger"})
        samples = bench.bench.metrics.registry.get_sample_value
        await bench.until(lambda: samples("golongrl_rollout_engine_restarts_total"))
        await bench.until(lambda: bench.state.engine_version == 0)
        await bench.learner.finish(publish(tmp_path, 1, tiny_model))
        for group in (await bench.take()).groups:
            assert versions(group) <= {0, 1}


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
            raise EngineUnavailable("POST /generate: 500: the model thread has failed")

        monkeypatch.setattr(bench.bench.engine, "generate", broken)
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_model))
        bench.start()
        await bench.until(lambda: "failed" in (bench.state.waiting_for or ""))
        assert bench.state.groups == 0
        assert len((await bench.take()).groups) == 2
