"""A mixture of experts trained on the experts that its engines chose, through a learner that dies."""

from pathlib import Path

import pytest

from golongrl.data import resolve
from golongrl.queue import SampleQueue
from golongrl.routes.store import MARKER, folder_in
from golongrl.telemetry import history
from support.embedded_server import EmbeddedServer
from support.redis_server import free_port
from support.train_run import Run
from support.upcycled import upcycle

STEPS = 4
SMALL = [
    "learner.routing_replay=true",
    "queue.groups_per_step=9",
    "rollout.n=4",
    "rollout.max_response_tokens=24",
    "data.prompts=90",
    f"learner.steps={STEPS}",
    # None before the learner dies: what it trained is trained again, from the same files.
    "learner.checkpoint_every=4",
]


@pytest.mark.full
@pytest.mark.timeout(1800)
async def test_every_step_replays_and_the_files_go_with_the_commit(tmp_path: Path) -> None:
    model = upcycle(resolve("builtin:quickstart"), tmp_path / "mixture")
    run = Run(tmp_path, "--set", f"model.path={model}", *(word for item in SMALL for word in ("--set", item)))
    folder = folder_in(run.folder / "weights")
    try:
        run.until(lambda: len(run.steps()) >= 2)
        assert len(list(folder.glob("*.routes"))) >= 18, "those of trained steps are kept until their commit"
        run.child("golongrl learner").kill()
        assert run.wait() == 0, run.log.read_text()
    finally:
        run.end()
    records = history.read(run.folder / "metrics.jsonl")
    assert records.steps == list(range(1, STEPS + 1))
    assert records.series("batch/replayed")[:2] == [1, 1]
    assert records.series("batch/set_aside") == [0] * STEPS
    assert records.series("routing/replayed_share") == [1.0] * STEPS
    assert all(0 <= share < 0.2 for share in records.series("routing/changed_share"))
    async with (
        EmbeddedServer(free_port(), run.folder / "redis") as server,
        SampleQueue.from_url(server.url, "demo") as queue,
    ):
        waiting = await queue.live_routes()
    # Groups that no step took any more are still in the queue.
    assert {path.name for path in folder.iterdir()} - {MARKER} <= waiting
