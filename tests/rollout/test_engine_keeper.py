"""An engine is found, watched and brought to the announced weights, whatever comes between."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from golongrl.broadcast.process import SenderProcess
from golongrl.queue import WeightsRef
from golongrl.rollout.observe.state import not_ready
from golongrl.rollout.sglang.http import Deadlines
from rollout.harness import Rig, Start, lose, publish, recipe, set_up, versions
from support.sender import hold

LONG = ("rollout.max_response_tokens=900", "queue.max_staleness=2", "rollout.group_filter=false", "rollout.n=2")


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


@pytest.mark.parametrize(
    "mode", ["in_place", *(pytest.param(mode, marks=pytest.mark.full) for mode in ("abort", "retract", "drain"))]
)
async def test_new_weights_reach_groups_in_flight_as_the_recipe_says(
    start: Start, tmp_path: Path, tiny_model: Path, tiny_model_next: Path, mode: str
) -> None:
    made = recipe(f"rollout.adoption={mode}", *LONG)
    async with start(made) as bench:
        queue, fence = bench.learner.queue, bench.learner.fence
        await queue.announce(fence, publish(tmp_path, 0, tiny_model))
        bench.start()

        def in_mid_flight() -> bool:
            groups = bench.worker.training.groups
            return len(groups) == 2 and all(min(live.tokens) > 0 for live in groups)

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
    async with start(recipe()) as bench:
        missing = WeightsRef(0, str(tmp_path / "v0"), lineage="first", checksum="")
        await bench.learner.queue.announce(bench.learner.fence, missing)
        bench.start()
        await bench.until(lambda: "not taken in 2 tries" in (bench.state.waiting_for or ""))
        assert "is the weight store mounted here?" in str(bench.state.waiting_for)
        assert bench.state.phase == "waiting"
        assert bench.state.quarantine is None
        assert (await bench.learner.queue.stats()).leased == 0
        publish(tmp_path, 0, tiny_model)
        await bench.take()


async def test_a_sender_that_cannot_send_is_waited_for(
    start: Start, sender: SenderProcess, tmp_path: Path, tiny_model: Path, tiny_model_next: Path
) -> None:
    """However long it takes: at max_staleness 0 there is no other version before this engine has this one."""
    support = publish(tmp_path, 0, tiny_model)
    async with start(recipe()) as bench:
        hold(sender, tiny_model_next, 7)
        ref = replace(support, source=sender.source)
        await bench.learner.queue.announce(bench.learner.fence, ref)
        bench.start()
        await bench.until(lambda: "not taken in 3 tries" in (bench.state.waiting_for or ""))
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
    async with start(recipe()) as bench:
        engine = bench.bench.engine
        update = engine.update_from_disk

        async def under_another_name(path: str, version: str, *, flush_cache: bool) -> None:
            await update(path, "elsewhere", flush_cache=flush_cache)

        monkeypatch.setattr(engine, "update_from_disk", under_another_name)
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_model))
        bench.start()
        await bench.until(lambda: "not taken in 2 tries" in (bench.state.waiting_for or ""))
        assert "reads back 'elsewhere'" in str(bench.state.quarantine)
        assert (await bench.learner.queue.stats()).leased == 0
        assert (await bench.engine.get("/ready")).status_code == 200, "the engine must not be left paused"


async def test_a_store_that_only_the_engine_cannot_read_is_waited_for(
    start: Start, tmp_path: Path, tiny_model: Path, tiny_model_next: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no newer version before this engine has this one: it must never be given up."""
    monkeypatch.setattr("golongrl.rollout.backoff.LONGEST_S", 0.05)

    def unreadable(ref: WeightsRef) -> Callable[[], None]:
        weights = next(Path(ref.path).glob("*.safetensors"))
        weights.rename(hidden := weights.with_suffix(".hidden"))
        return lambda: hidden.rename(weights) and None

    async with start(recipe("queue.max_staleness=0")) as bench:
        queue, fence = bench.learner.queue, bench.learner.fence

        async def given_up_by_nobody(version: int) -> None:
            await bench.until(lambda: "not taken in 9 tries" in (bench.state.waiting_for or ""))
            why = f"version {version}: POST /update_weights_from_disk: 400: no *.safetensors weights in"
            assert why in str(bench.state.quarantine)
            assert "400: no *.safetensors weights in" in str(bench.state.waiting_for)
            assert bench.state.phase == "quarantined"
            assert not_ready(bench.state, max_staleness=0)[0].startswith(f"quarantined: {why}")
            assert (await queue.stats()).leased == 0
            while (beat := (await queue.services())[0].fields)["quarantine"] == "":
                await asyncio.sleep(0.02)
            assert why in beat["quarantine"]

        mend = unreadable(first := publish(tmp_path, 0, tiny_model))
        await queue.announce(fence, first)
        bench.start()
        await given_up_by_nobody(0)
        assert bench.state.engine_version is None
        mend()
        await bench.take()
        assert bench.state.quarantine is None

        mend = unreadable(second := publish(tmp_path, 1, tiny_model_next))
        await bench.learner.finish(second)
        await given_up_by_nobody(1)
        assert bench.state.engine_version == 0, "it refused, and says so"
        await queue.stop(fence, "complete", "1 steps")
        await bench.until(lambda: bench.state.phase == "idle")
        assert (await queue.attach(0)).version == 1
        mend()
        await bench.until(lambda: bench.state.engine_version == 1)


async def test_an_engine_that_somebody_paused_is_found_out_by_the_group_that_stalls(
    start: Start, tmp_path: Path, tiny_model: Path
) -> None:
    async with start(recipe("queue.lease_s=60", "queue.stall_s=4", "reward.deadline_s=2")) as bench:
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_model))
        bench.start()
        await bench.until(lambda: bench.state.engine_version == 0)
        await bench.engine.post("/pause_generation", json={"mode": "in_place"})
        await bench.until(lambda: bench.state.paused_since is not None)
        assert bench.state.paused_by == "somebody else"
        await bench.take()
        assert (await bench.engine.get("/ready")).status_code == 200
        await bench.until(lambda: bench.state.paused_since is None)


async def test_a_run_that_begins_anew_under_its_name_gets_the_engine(
    start: Start, tmp_path: Path, tiny_model: Path, tiny_model_next: Path
) -> None:
    """The queue lost its data; at max_staleness 0 nobody would ever come to the version that the engine is at."""
    made = recipe("queue.max_staleness=0")
    async with start(made) as bench:
        learner = bench.learner
        await learner.queue.announce(learner.fence, publish(tmp_path, 0, tiny_model))
        bench.start()
        for version, model in ((1, tiny_model_next), (2, tiny_model)):
            await bench.take()
            await learner.finish(publish(tmp_path, version, model))
        await bench.until(lambda: bench.state.engine_version == 2)
        await lose(learner.queue)
        await bench.until(lambda: bench.state.waiting_for == "the learner to set up the run" or not bench.state.groups)
        bench.learner = await set_up(learner.queue, made)
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path / "anew", 0, tiny_model_next))
        batch = await bench.take()
        assert all(versions(group) == {0} for group in batch.groups)


async def test_a_queue_that_lost_its_run_gets_no_group_before_it_has_announced_weights(
    start: Start, tmp_path: Path, tiny_model: Path, tiny_model_next: Path
) -> None:
    """The engine is one version ahead of the new queue, as it may be: of the history that was lost."""
    made = recipe("queue.max_staleness=0")
    async with start(made) as bench:
        learner = bench.learner
        await learner.queue.announce(learner.fence, publish(tmp_path, 0, tiny_model))
        bench.start()
        await bench.take()
        await learner.finish(publish(tmp_path, 1, tiny_model_next))
        await bench.until(lambda: bench.state.engine_version == 1)
        await lose(learner.queue)
        bench.learner = await set_up(learner.queue, made)
        await bench.until(lambda: bench.state.waiting_for == "no weights have been announced")
        assert bench.state.engine_version is bench.state.announced_version is None
        await bench.until(lambda: not bench.state.groups)
        assert (await learner.queue.stats()).leased == 0
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path / "anew", 0, tiny_model_next))
        assert all(versions(group) == {0} for group in (await bench.take()).groups)


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


class Slow(httpx.AsyncBaseTransport):
    """An engine short of processor time: it answers, but `delay_s` late; its streams go on."""

    def __init__(self, engine: httpx.AsyncBaseTransport) -> None:
        self.delay_s = 0.0
        self._engine = engine

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.path != "/generate":
            await asyncio.sleep(self.delay_s)
        return await self._engine.handle_async_request(request)

    async def aclose(self) -> None:
        await self._engine.aclose()


def slow_down(bench: Rig) -> Slow:
    """Put delays before the rig's engine, which has 0.1 s to answer from now on."""
    engine = bench.bench.engine
    slow = engine._http._transport = Slow(engine._http._transport)
    engine._deadlines = Deadlines(connect_s=0.1, control_s=0.1, silence_s=120.0)
    return slow


@pytest.mark.full
async def test_an_engine_that_is_slower_than_every_deadline_is_found_all_the_same(
    start: Start, tmp_path: Path, tiny_model: Path
) -> None:
    async with start(recipe()) as bench:
        slow_down(bench).delay_s = 0.4
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_model))
        bench.start()
        await bench.take()


async def test_an_engine_that_answers_nothing_but_whose_groups_get_on_is_not_gone(
    start: Start, tmp_path: Path, tiny_model: Path
) -> None:
    async with start(recipe("rollout.max_response_tokens=900", "rollout.group_filter=false")) as bench:
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_model))
        bench.start()
        await bench.until(lambda: bench.state.groups == 2)
        slow = slow_down(bench)
        slow.delay_s = 60.0
        await bench.until(lambda: "the engine is slow: GET /model_info" in (bench.state.waiting_for or ""))
        assert len((await bench.take()).groups) == 2
        stats = await bench.learner.queue.stats()
        assert sum(stats.redone_by.values()) == 0
        # With nothing in flight there is nothing to tell it from a dead one.
        await bench.until(lambda: not bench.state.engine_up)
        slow.delay_s = 0.0
        await bench.until(lambda: bench.state.engine_version == 0)
