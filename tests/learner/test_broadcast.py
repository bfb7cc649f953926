"""The learner broadcasts its weights: an engine beside it holds every version, a kill changes none of them."""

import asyncio
import shutil
import signal
import tempfile
from pathlib import Path

import psutil
import pytest

from golongrl.queue import WeightsRef
from golongrl.rollout.sglang.client import EngineClient
from golongrl.rollout.sglang.errors import AdoptionError
from golongrl.rollout.weights.adopt import Confirmed, adopt
from golongrl.rollout.weights.policy import Mode
from rollout.harness import embedded_engine
from support.learner_run import LearnerRun, learner_run, small_recipe

# Two learners start.
pytestmark = pytest.mark.timeout(1800)


class Follower:
    """A worker's one duty here: bring the engine to whatever is announced."""

    def __init__(self, run: LearnerRun, engine: EngineClient) -> None:
        self.run, self.engine = run, engine
        self.announced: list[WeightsRef] = []
        self.held: Confirmed | None = None

    async def watch(self) -> None:
        async with self.run.queue() as queue:
            while True:
                ref = await queue.weights()
                if ref is not None and ref not in self.announced:
                    self.announced.append(ref)
                await asyncio.sleep(0.01)

    async def follow(self) -> None:
        while True:
            ref = self.announced[-1] if self.announced else None
            if ref is not None and (self.held is None or self.held.ref != ref):
                try:
                    await adopt(self.engine, ref, Mode.DRAIN, self.held, self._hold, worker="follower")
                except AdoptionError as failure:  # a newer version came, or the learner is dead
                    self.held = self.held if failure.unchanged else None
            await asyncio.sleep(0.02)

    def _hold(self, held: Confirmed) -> None:
        self.held = held


def over(process: psutil.Process) -> bool:
    """Whether it has ended, waited for or not."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.full
async def test_every_version_reaches_the_engine_and_a_kill_changes_none(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL at version 3 with a checkpoint at 2: what came after it is made again, and sent by another process."""
    # Of the learner, which inherits it; short, as Ray has its sockets there.
    temporary = Path(tempfile.mkdtemp())
    monkeypatch.setenv("TMPDIR", str(temporary))
    recipe = small_recipe(tiny_model, "learner.weights=broadcast", "queue.max_staleness=0", "learner.test_freq=4")
    async with (
        learner_run(tmp_path / "run", recipe) as run,
        embedded_engine(tiny_model) as url,
        EngineClient(url) as engine,
    ):
        follower = Follower(run, engine)
        # However late the kill comes: before there is another version.
        run.feeds_below = 3
        tasks = [asyncio.create_task(follower.watch()), asyncio.create_task(follower.follow())]
        await run.until(lambda: any(ref.version == 3 for ref in follower.announced))
        family = run.family("LearnerRank", "golongrl.broadcast")
        assert len(family) == 2
        run.kill(signal.SIGKILL)
        # A sender that still lives keeps its folder, and the next learner leaves that alone. (Two agents of Ray's live
        # on for a minute; they hold nothing.)
        async with asyncio.timeout(300):
            while not all(map(over, family)):
                await asyncio.sleep(0.05)
        await run.ended()
        run.feeds_below = None
        run.start()
        # The validation of the last version keeps the learner, and its sender, until the engine has taken it.
        await run.until(lambda: follower.held is not None and follower.held.ref.version == 4)
        for task in tasks:
            task.cancel()
        run.validates.set()
        assert await run.ended() == 0, run.log[-4000:]
        stats = await run.queue().stats()
        assert (stats.version, stats.committed, stats.trained) == (4, 4, 12)
        # One history: each version has one checksum and one lineage, whoever sent it.
        assert {ref.lineage for ref in follower.announced} == {follower.announced[0].lineage}
        assert {ref.version for ref in follower.announced} >= {0, 3, 4}
        assert len({(ref.version, ref.checksum) for ref in follower.announced}) == len(
            {ref.version for ref in follower.announced}
        )
        assert [ref.version for ref in follower.announced if not ref.source] == [0]
        assert len({ref.source for ref in follower.announced}) == 3
        # Only version 0 and the result are on disk.
        assert sorted(path.name for path in (run.root / "weights").iterdir()) == ["v0", "v4"]
        taken = await engine.checksums()
        await engine.update_from_disk(str(run.root / "hf"), "hf", flush_cache=True)
        assert await engine.checksums() == taken
    assert not list(temporary.glob("golongrl-weights-*")), "weights left in the host's temporary folder"
    shutil.rmtree(temporary, ignore_errors=True)
    assert any(record.get("weights/bytes", 0) > 0 for record in run.records)
    assert run.log.count("Traceback") == 0
