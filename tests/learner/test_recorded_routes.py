"""Files of routes as the learner finds them: what cannot be replayed is set aside with its reason, nothing else."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from golongrl.learner.batch.prepare import PreparedBatch
from golongrl.learner.batches import Batches
from golongrl.learner.recorded_routes import RoutesCheck, RoutesReader
from golongrl.queue import Group, Lease, SampleQueue
from golongrl.recipe import load
from golongrl.routes.groups import GroupRoutes
from golongrl.routes.model import MoeRouting
from golongrl.routes.reference import RoutesReference, object_name
from golongrl.routes.store import MARKER, RoutesError, write_routes
from support.groups import group_for, queue_settings

ROUTING = MoeRouting(3, (0, 2), 2, 4)
PROMPT, TOKENS = 8, 4


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / MARKER).write_text("{}")
    return tmp_path


@pytest.fixture
async def queue(redis_url: str, run_name: str) -> AsyncIterator[SampleQueue]:
    async with SampleQueue.from_url(redis_url, run_name) as client:
        await client.setup(queue_settings(groups_per_step=4), [np.arange(8, dtype=np.int32)], ["a"] * 8)
        yield client


def routes(
    prompt: int = PROMPT, tokens: int = TOKENS, responses: int = 2, layers: int = 2, experts: int = 4
) -> GroupRoutes:
    rng = np.random.default_rng(prompt)

    def some(rows: int) -> np.ndarray:
        return rng.integers(0, experts, (rows, layers, 2)).astype(np.uint8)

    return GroupRoutes(some(prompt), tuple(some(tokens - 1) for _ in range(responses)), experts)


def group(folder: Path, lease: Lease, recorded: GroupRoutes | None) -> Group:
    made = group_for(lease, tokens=TOKENS)
    if recorded is None:
        return made
    return replace(made, routes=write_routes(folder, object_name(lease.token), recorded))


async def test_groups_whose_routes_are_gone_are_replaced(folder: Path, queue: SampleQueue) -> None:
    fence = (await queue.attach(0)).token
    leases = [await queue.lease("worker-7", 0) for _ in range(6)]
    assert all(isinstance(lease, Lease) for lease in leases)
    groups = [group(folder, lease, None if i in (1, 5) else routes()) for i, lease in enumerate(leases)]
    for lease, made in zip(leases, groups, strict=True):
        await queue.submit(lease, made)
    assert groups[2].routes is not None
    (folder / groups[2].routes.name).unlink()
    assert groups[3].routes is not None
    damaged = folder / groups[3].routes.name
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\0")
    recipe = load("quickstart", ["queue.groups_per_step=4", "learner.steps=1"])
    check = RoutesCheck(folder, ROUTING)
    async with Batches(recipe, queue, fence, lambda step, wait: None, 96.0, routes=check) as batches:
        batches.prefetch(1)
        assert batches.upcoming is not None
        batch = await batches.upcoming
    assert isinstance(batch, PreparedBatch)
    assert batch.rows.tolist() == [[0, 0], [0, 1], [0, 4], [0, 5]]
    parts = [shard for mini in batch.minis for shard in mini]
    assert [part.routes.groups for part in parts if part.routes] == [[groups[0].routes, None, groups[4].routes, None]]
    reasons = {each.uid: each.reason for each in await queue.set_aside_groups()}
    assert reasons.keys() == {"0-2", "0-3"}
    assert reasons["0-2"].endswith(f"{groups[2].routes.name}: No such file or directory")
    assert "sha256 differs" in reasons["0-3"]


@pytest.mark.parametrize(
    ("recorded", "reason"),
    [
        (routes(), None),
        (None, None),
        (routes(prompt=7), "routes of 7 prompt tokens, the prompt has 8"),
        (routes(tokens=5), "response 0 of 4 tokens has 4 rows of routes, not 3"),
        (routes(responses=3), "routes of 3 responses, the group has 2"),
        (
            routes(layers=3),
            "routes are of 3 MoE layers with 2 of 4 experts, the model has 2 MoE layers with 2 of 4 experts",
        ),
        (routes(experts=8), "routes are of 2 MoE layers with 2 of 8 experts, the model has 2 MoE layers"),
    ],
)
def test_routes_of_another_group_or_model(folder: Path, recorded: GroupRoutes | None, reason: str | None) -> None:
    lease = Lease("0-0", 0, 0, 0, "0-0:00112233", "w", 0, "", 0.0, 0.0)
    found = RoutesCheck(folder, ROUTING).faults([group(folder, lease, recorded)])
    assert found == {} if reason is None else found["0-0"].startswith(reason)


def test_a_batch_that_comes_again_with_a_group_replaced_is_not_read_again(folder: Path) -> None:
    leases = [Lease(f"0-{i}", 0, 0, 0, f"0-{i}:00112233", "w", 0, "", 0.0, 0.0) for i in range(3)]
    first, second, third = (group(folder, lease, routes()) for lease in leases)
    check = RoutesCheck(folder, ROUTING)
    assert check.faults([first, second]) == {}
    for path in folder.glob("*.routes"):
        path.unlink()
    assert check.faults([first, third]).keys() == {"0-2"}
    assert check.faults([second]).keys() == {"0-1"}, "of the last batch only"


async def test_a_store_that_is_not_there_is_no_groups_fault(tmp_path: Path) -> None:
    """Else every group that workers made meanwhile would be lost."""
    check = RoutesCheck(tmp_path / "routes", ROUTING)
    with pytest.raises(RoutesError, match="is the weight store mounted here"):
        await asyncio.to_thread(check.faults, [])


def test_a_rank_keeps_what_its_micro_batch_needs(folder: Path) -> None:
    made = {size: routes(prompt=size) for size in (5, 6, 7)}
    files = {size: write_routes(folder, f"0-{size}.00000000.routes", each) for size, each in made.items()}
    reader = RoutesReader(folder)
    reader.keep({files[5], files[6]})
    kept = reader.read(files[6])
    (folder / files[6].name).unlink()
    reader.keep({files[6], files[7]})
    assert reader.read(files[6]) is kept, "read once"
    assert (reader.read(files[7]).prompt == made[7].prompt).all()
    with pytest.raises(KeyError):
        reader.read(files[5])
    with pytest.raises(RoutesError, match="No such file"):
        reader.keep({RoutesReference("0-9.00000000.routes", "0" * 64, 1)})
