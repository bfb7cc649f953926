"""Validation rounds answered by a worker: real queue, real engine, real reward service."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx
import numpy as np
import pytest

from golongrl.data.prepared import BENCHMARK
from golongrl.queue import ValidationItem, ValidationProgress, ValidationResult
from rollout.harness import Learner, Rig, publish, recipe, rig, write_rows
from support.tiny_model import build_tiny_model

HELD_OUT = 7

Start = Callable[..., AbstractAsyncContextManager[Rig]]


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("held") / "validation", HELD_OUT)


@pytest.fixture
def start(
    redis_url: str, run_name: str, rows: Path, held_out: Path, engine_url: str, reward: httpx.ASGITransport
) -> Start:
    def begin(*overrides: str, validation: Path = held_out, **more):
        return rig(recipe(*overrides), redis_url, run_name, rows, engine_url, reward, validation=validation, **more)

    return begin


async def begun(learner: Learner, version: int = 0, rows: int = HELD_OUT) -> None:
    await learner.queue.validation.open(learner.fence, version, "first", rows)


async def answered(bench: Rig, rows: int = HELD_OUT) -> list[ValidationResult]:
    """The round's results, once all are there."""
    found: list[ValidationResult] = []

    async def wait() -> None:
        while (await bench.learner.queue.validation.progress()).done < rows:
            await asyncio.sleep(0.02)
        found.extend(await bench.learner.queue.validation.results(rows))

    waiting = asyncio.create_task(wait())
    await bench.until(waiting.done)
    waiting.result()
    return found


async def test_a_round_is_answered_beside_training(start: Start, tmp_path: Path, tiny_model: Path) -> None:
    async with start() as bench:
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_model))
        await begun(bench.learner)
        bench.start()
        results = await answered(bench)
        assert [result.row for result in results] == list(range(HELD_OUT))
        for result in results:
            assert result.reward == len(result.response) % 7 / 7
            assert 0 < result.tokens <= 24
            assert result.finish_reason in ("stop", "length")
            assert result.worker == "w0"
        # Training had gone on, or goes on now, with the same engine.
        assert [group.row for group in (await bench.take()).groups] == [0, 1]
        samples = bench.bench.metrics.registry.get_sample_value
        assert samples("golongrl_rollout_validation_rows_total", {"outcome": "scored"}) == HELD_OUT


async def test_validation_sampling_is_the_recipes(start: Start, tmp_path: Path, tiny_model: Path) -> None:
    """At temperature 0 a prompt has one answer, whatever the seed: two equal prompts answer alike, as training's do
    not."""
    same = write_rows(tmp_path / "same", 3, prompt_ids=np.arange(20, 32, dtype=np.int32))
    async with start("rollout.validation_temperature=0.0", validation=same) as bench:
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_model))
        await begun(bench.learner, rows=3)
        bench.start()
        assert len({result.response for result in await answered(bench, 3)}) == 1


async def test_what_cannot_be_scored_is_unscored_with_a_reason(start: Start, tmp_path: Path, tiny_model: Path) -> None:
    extra = {"reward_mode": "EM", "unscored": True}
    too_long = np.full(65, 20, np.int32)
    for name, changes, reason in (
        ("unscored", {"extra_info": extra}, "asked for"),
        # The reward service knows no such data source, and is not asked.
        ("problem", {"task": BENCHMARK, "data_source": "aime24"}, "the learner scores it"),
        ("long", {"prompt_ids": too_long}, "a prompt of 65 tokens is too long"),
        (
            "foreign",
            {"prompt_ids": np.full(5, 5000, np.int32)},
            "given up after 3 attempts, the last one: token id",
        ),
    ):
        folder = write_rows(tmp_path / name, 1, **changes)
        async with start(validation=folder) as bench:
            learner = bench.learner
            if await learner.queue.weights() is None:
                await learner.queue.announce(learner.fence, publish(tmp_path, 0, tiny_model))
            await begun(learner, rows=1)
            bench.start()
            [result] = await answered(bench, 1)
            assert result.reward is None
            assert result.reason.startswith(reason)
            assert bool(result.response) is (name in ("unscored", "problem"))
            await learner.queue.validation.close(learner.fence)


async def test_rows_of_older_weights_are_given_back_before_new_ones_are_taken(
    start: Start, tmp_path: Path, tiny_model: Path, tiny_model_next: Path
) -> None:
    """And the new round is answered by the new weights alone."""
    async with start("rollout.max_response_tokens=900", "queue.max_staleness=0") as bench:
        learner = bench.learner
        await learner.queue.announce(learner.fence, publish(tmp_path, 0, tiny_model))
        await begun(learner)
        bench.start()
        validation = bench.worker.validation
        assert validation is not None
        await bench.until(lambda: len(validation) > 0 and any(row.live.sampled for row in validation._rows.values()))
        await bench.engine.post("/pause_generation", json={"mode": "in_place"})
        await learner.queue.announce(learner.fence, publish(tmp_path, 1, tiny_model_next))
        await bench.until(lambda: bench.state.engine_version == 1)
        progress = await learner.queue.validation.progress()
        assert progress.leased == 0
        assert progress.todo + progress.done == HELD_OUT
        assert progress.todo > 0
        await begun(learner, version=1)
        assert len(await answered(bench)) == HELD_OUT


async def test_a_stopped_worker_gives_its_rows_back_at_once(start: Start, tmp_path: Path, tiny_model: Path) -> None:
    async with start("rollout.max_response_tokens=900") as bench:
        learner = bench.learner
        await learner.queue.announce(learner.fence, publish(tmp_path, 0, tiny_model))
        await begun(learner)
        bench.start()
        await bench.until(lambda: len(bench.worker.validation) == HELD_OUT)
        await bench.engine.post("/pause_generation", json={"mode": "in_place"})
        bench.worker.stop()
        await bench.until(lambda: len(bench.worker.validation) == 0)
        progress = await learner.queue.validation.progress()
        assert progress == ValidationProgress(todo=HELD_OUT - progress.done, leased=0, done=progress.done)
        await bench.engine.post("/continue_generation", json={})
        await bench.tasks.pop()


async def test_leases_are_renewed_and_a_closed_round_ends_the_work(
    start: Start, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease_s = 0.6
    wide = ("rollout.max_response_tokens=900", "rollout.concurrent_groups=6", f"queue.lease_s={lease_s}")
    async with start(*wide, manual_clock=True) as bench:
        learner, work = bench.learner, bench.bench.queue.validation
        real, renewals = work.renew, Counter[str]()

        async def renew(items: Sequence[ValidationItem]) -> list[bool]:
            kept = await real(items)
            renewals["done"] += 1
            return kept

        monkeypatch.setattr(work, "renew", renew)
        await learner.queue.announce(learner.fence, publish(tmp_path, 0, tiny_model))
        bench.start()
        await bench.until(lambda: bench.state.engine_version == 0)
        await bench.engine.post("/pause_generation", json={"mode": "in_place"})
        await begun(learner)
        await bench.until(lambda: len(bench.worker.validation) == HELD_OUT)
        kept = {row.item.token for row in bench.worker.validation._rows.values()}
        for _ in range(3):
            await learner.queue.advance(0.8 * lease_s)
            # One that was under way when the clock went on says nothing.
            enough = renewals["done"] + 2
            await bench.until(lambda enough=enough: renewals["done"] >= enough)
        assert {row.item.token for row in bench.worker.validation._rows.values()} == kept
        await learner.queue.validation.close(learner.fence)
        await bench.until(lambda: len(bench.worker.validation) == 0)
        await bench.engine.post("/continue_generation", json={})


@pytest.mark.full
async def test_an_engine_that_dies_costs_the_round_nothing_but_time(
    redis_url: str, run_name: str, rows: Path, held_out: Path, reward: httpx.ASGITransport, tmp_path: Path
) -> None:
    from rollout.test_process import engine_process
    from support.redis_server import free_port

    port = free_port()
    model = build_tiny_model(tmp_path / "model")
    made = recipe("rollout.max_response_tokens=512")
    url = f"http://127.0.0.1:{port}"
    async with rig(made, redis_url, run_name, rows, url, reward, validation=held_out) as bench:
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, model))
        await begun(bench.learner)
        bench.start()
        async with engine_process(model, port) as engine:
            await bench.until(lambda: len(bench.worker.validation) > 0)
            engine.kill()
            await engine.wait()
            await bench.until(lambda: len(bench.worker.validation) == 0 and not bench.state.engine_up)
        async with engine_process(model, port):
            results = await answered(bench)
            assert all(result.reward is not None for result in results)
            bench.worker.stop()
            await bench.tasks.pop()
