"""Whatever process of a real run is killed or frozen, in whatever phase: the run comes to its end, and it is whole."""

import random
from pathlib import Path

import pytest

from golongrl.learner.checkpoints.store import Checkpoints
from golongrl.queue import SampleQueue
from golongrl.telemetry import history
from support.checkpoints import latest
from support.embedded_server import EmbeddedServer
from support.redis_server import free_port

from .live import OF_THE_LEARNER, OTHERS, STEPS_OF_A_HIT, VICTIMS, LiveRun, schedule

STEPS, GROUPS, ETA = 30, 9, 1
SMALL = {
    "learner.steps": STEPS,
    "learner.checkpoint_every": 2,
    "queue.groups_per_step": GROUPS,
    "queue.max_staleness": ETA,
    "rollout.n": 4,
    "rollout.max_response_tokens": 24,
}


def test_a_schedule_hits_every_victim_and_no_service_more_than_twice_in_a_life() -> None:
    for seed in range(200):
        lives = schedule(random.Random(seed))
        killed = [hit.victim for life in lives for hit in life if hit.frozen_s is None]
        assert sorted(killed) == sorted(VICTIMS)
        for life in lives:
            of_one = [hit.victim for hit in life if hit.frozen_s is None]
            assert sum(name in OF_THE_LEARNER for name in of_one) == 2
            assert len({name for name in of_one if name in OTHERS}) == 2
        assert sum(map(len, lives)) * STEPS_OF_A_HIT <= STEPS


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("weights", ["disk", "broadcast"])
async def test_a_real_run_is_whole_whoever_is_killed_or_frozen(tmp_path: Path, weights: str) -> None:
    first, second = schedule(random.Random(1))
    settings = {**SMALL, "learner.weights": weights}
    run = LiveRun(tmp_path, [word for key, value in settings.items() for word in ("--set", f"{key}={value}")])
    try:
        run.start()
        for hit in first:
            run.hit(hit)
        run.kill_and_resume()
        for hit in second:
            run.hit(hit)
        code = run.run.wait()
        said = run.run.log.read_text()
        assert code == 0, "\n".join([*run.told, said])
    finally:
        run.run.end()
    print("\n".join(run.told))
    assert run.left() == []
    await check(run.run.folder)


async def check(folder: Path) -> None:
    """Every step once, no row twice, none too stale, nothing set aside."""
    records = history.read(folder / "metrics.jsonl")
    assert records.steps == list(range(1, STEPS + 1))
    assert records.series("batch/groups") == [GROUPS] * STEPS
    assert max(records.series("staleness/max")) <= ETA
    checkpoint = latest(Checkpoints(folder / "checkpoints"))
    assert checkpoint is not None
    rows = [(int(epoch), int(row)) for epoch, row in checkpoint.rows]
    assert len(set(rows)) == len(rows) == STEPS * GROUPS
    async with (
        EmbeddedServer(free_port(), folder / "redis") as server,
        SampleQueue.from_url(server.url, "demo") as queue,
    ):
        stats = await queue.stats()
        places = {row: (await queue.peek(f"{row[0]}-{row[1]}")).state for row in rows}
    assert set(places.values()) == {"trained"}
    assert (stats.version, stats.committed, stats.trained) == (STEPS, STEPS, STEPS * GROUPS)
    assert max(stats.trained_staleness) <= ETA
    assert (stats.set_aside, stats.rejected) == (0, 0)
