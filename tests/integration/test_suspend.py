"""Suspending with real processes: what is there ends in order, nothing is left running, and a resume continues."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from golongrl.learner.checkpoints.store import Checkpoints
from golongrl.ports import unused
from golongrl.reward.app import create_app
from golongrl.reward.config import RewardConfig
from rollout import scoring
from rollout.harness import served, write_rows
from support.checkpoints import latest
from support.learner_run import LearnerRun, learner_run, small_recipe
from support.processes import below

# A learner starts in 15 s alone on two cores, in minutes beside other tests.
pytestmark = [pytest.mark.full, pytest.mark.timeout(3600)]


def trained_rows(run: LearnerRun) -> list[tuple[int, int]]:
    """(epoch, row) of every group that the last checkpoint stands for."""
    found = latest(Checkpoints(run.root / "checkpoints"))
    assert found is not None
    return [(int(epoch), int(row)) for epoch, row in found.rows]


async def suspend(run: LearnerRun) -> None:
    """SIGTERM to the learner; every process of it is gone afterwards, and nothing that is trained is at risk."""
    assert run.process is not None
    family = [psutil.Process(run.process.pid), *psutil.Process(run.process.pid).children(recursive=True)]
    run.kill(signal.SIGTERM)
    assert await run.ended() == 143, run.log[-4000:]
    _, left = await asyncio.to_thread(psutil.wait_procs, family, timeout=120)
    assert left == []
    stats = await run.queue().stats()
    assert stats.version == stats.committed
    assert stats.stopped is None


class Engine:
    """An engine and its worker, as a pod of the pool has them."""

    def __init__(self, run: LearnerRun, reward: str) -> None:
        engine, worker = unused(2)
        self._log = (run.root / "pool.log").open("ab")
        self._processes = [
            self._start(
                "engine", "--model-path", run.recipe.model.path, "--port", engine, "--context-length",
                run.recipe.model.context_length,
            ),
            self._start(
                "rollout", "--recipe", run.root / "recipe.yaml", "--run", run.name, "--redis-url", run.server.url,
                "--engine-url", f"http://127.0.0.1:{engine}", "--reward-url", reward, "--data", run.root / "data",
                "--worker", "rollout-0", "--port", worker, "--weights-copy", run.root / "copy", "--grace", 1,
            ),
        ]  # fmt: skip

    def _start(self, *words: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "golongrl", *map(str, words)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        return subprocess.Popen(command, env=environment, stdout=self._log, stderr=self._log, start_new_session=True)

    async def drain(self) -> list[int]:
        """End the worker and then its engine, as the kubelet does; their exit codes."""
        found = []
        for process in reversed(self._processes):
            process.terminate()
            found.append(await asyncio.to_thread(process.wait, 240))
        self._log.close()
        return found

    def kill(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


async def test_a_suspended_run_has_no_process_and_its_groups_are_trained_once(tiny_model: Path, tmp_path: Path) -> None:
    """Real engine, worker and rewards. A group takes longer than the worker's grace period, so that the pool may
    have to give groups back. Redis is started again in between."""
    long = ("rollout.max_response_tokens=400", "rollout.concurrent_groups=2", "model.context_length=1024")
    recipe = small_recipe(tiny_model, "learner.steps=5", "learner.checkpoint_every=10", *long)
    rewards = create_app(RewardConfig(workers=1), score=scoring.by_length, preload=())
    async with served(rewards) as reward, learner_run(tmp_path / "run", recipe, start=False, feed=False) as run:
        # Rows that the reward service knows.
        shutil.rmtree(run.root / "data" / "train")
        write_rows(run.root / "data" / "train")
        run.start()
        engine = Engine(run, reward)
        try:
            await run.until(lambda: len(run.records) >= 2)
            # The operator deletes the RayJob and scales the pool to zero in one pass.
            _, codes = await asyncio.gather(suspend(run), engine.drain())
            assert codes == [0, 0], (run.root / "pool.log").read_text()[-3000:]
            stats = await run.queue().stats()
            assert stats.leased == 0
            assert stats.version >= 2
            # But its Redis.
            assert not [one for one in below() if str(run.root) in one.command and "golongrl" in one.command]
            await run.server.stop()
            await run.server.start()
            assert (await run.queue().stats()).version == stats.version
            engine = Engine(run, reward)
            run.start()
            assert await run.ended() == 0, run.log[-4000:]
            assert await engine.drain() == [0, 0]
        finally:
            engine.kill()
        stats = await run.queue().stats()
    assert [record["training/global_step"] for record in run.records] == [1, 2, 3, 4, 5]
    assert (stats.trained, stats.rejected, stats.set_aside) == (15, 0, 0)
    rows = trained_rows(run)
    assert len(set(rows)) == len(rows) == 15
    assert max(record["staleness/max"] for record in run.records) <= recipe.queue.max_staleness
