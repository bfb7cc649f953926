"""The learner's side of the routes' folder: what has served is deleted, and nothing else."""

from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl.files import ForeignFilesError
from golongrl.learner.routes_folder import RoutesFolder
from golongrl.queue import Lease, SampleQueue
from golongrl.routes.groups import GroupRoutes
from golongrl.routes.reference import object_name
from golongrl.routes.store import MARKER, open_folder, orphans, write_routes
from support.groups import group_for, queue_settings

ROUTES = GroupRoutes(np.zeros((8, 2, 2), np.uint8), (), 4)
HEX = "0123456789abcdef"


@pytest.fixture
async def queue(redis_url: str, run_name: str) -> AsyncIterator[SampleQueue]:
    async with SampleQueue.from_url(redis_url, run_name) as client:
        await client.setup(queue_settings(groups_per_step=1), [np.arange(4, dtype=np.int32)], ["a"] * 4)
        yield client


async def leased(queue: SampleQueue, folder: Path, version: int = 0) -> tuple[Lease, str]:
    """A lease whose routes are written already."""
    lease = await queue.lease("w", version)
    assert isinstance(lease, Lease)
    return lease, write_routes(folder, object_name(lease.token), ROUTES).name


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {MARKER}


async def test_routes_go_with_their_commit_and_a_crash_before_that_loses_none(
    queue: SampleQueue, tmp_path: Path
) -> None:
    routes = RoutesFolder(tmp_path / "routes", queue)
    await routes.open()
    await routes.open()
    fence = (await queue.attach(0)).token
    first, trained = await leased(queue, routes.folder)
    _, being_made = await leased(queue, routes.folder)
    await queue.submit(first, group_for(first, routes_bytes=9))
    await queue.take(fence, 1)
    await queue.finish(fence, 1)
    # Killed here: the next learner resumes, and trains the step again.
    await routes.sweep()
    assert files(routes.folder) == {trained, being_made}
    fence = (await queue.attach(0)).token
    await queue.commit(fence, 1)
    # Killed between commit and deletion: what is left is found at the next start.
    for _ in range(2):
        await routes.sweep()
        assert files(routes.folder) == {being_made}


async def test_what_dead_workers_left_is_removed(queue: SampleQueue, tmp_path: Path) -> None:
    open_folder(tmp_path / "routes")
    routes = RoutesFolder(tmp_path / "routes", queue)
    lease, lost = await leased(queue, routes.folder)
    await queue.release(lease, "stopped")
    again, kept = await leased(queue, routes.folder)
    assert again.uid == lease.uid
    (routes.folder / f"{lost}.0123abcd.tmp").touch()
    (routes.folder / f"{kept}.0123abcd.tmp").touch()
    (routes.folder / "notes.txt").touch()
    await routes.sweep()
    assert files(routes.folder) == {kept, f"{kept}.0123abcd.tmp", "notes.txt"}
    # The run is deleted from the queue: nobody wants any of it.
    await queue.forget()
    await queue.setup(queue_settings(groups_per_step=1), [np.arange(4, dtype=np.int32)], ["a"] * 4)
    await routes.sweep()
    assert files(routes.folder) == {"notes.txt"}


async def test_a_folder_that_is_not_there_or_not_ours_is_left_alone(queue: SampleQueue, tmp_path: Path) -> None:
    routes = RoutesFolder(tmp_path / "routes", queue)
    await routes.sweep()
    assert not routes.folder.exists()
    routes.folder.mkdir()
    name = f"0-0.{'ab' * 16}.routes"
    (routes.folder / name).touch()
    await routes.sweep()
    assert files(routes.folder) == {name}
    with pytest.raises(ForeignFilesError, match="holds files that are not of a learner"):
        await routes.open()


names = st.builds("{}-{}.{}.routes".format, st.integers(0, 3), st.integers(0, 3), st.text(HEX, min_size=8, max_size=9))
stored = names | st.builds("{}.{}.tmp".format, names, st.text(HEX, min_size=8, max_size=8))


@given(st.sets(stored), st.sets(names))
def test_exactly_the_files_of_no_live_group_are_orphans(there: set[str], live: set[str]) -> None:
    gone = set(orphans(sorted(there), live))
    assert gone <= there
    for name in there:
        wanted = any(name == owner or (name.startswith(f"{owner}.") and name.endswith(".tmp")) for owner in live)
        assert (name in gone) != wanted
