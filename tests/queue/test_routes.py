"""What the queue knows of groups' routes, which are files of the weight store: their bytes, and which are wanted."""

import pytest

from golongrl.queue import Lease, SubmitOutcome
from golongrl.routes.reference import object_name

from .conftest import Play

ROUTES = {"group_routes_bytes": 100, "max_routes_bytes": 1000}


def names(*leases: Lease) -> set[str]:
    return {object_name(lease.token) for lease in leases}


async def test_routes_live_from_the_lease_to_the_commit(play: Play) -> None:
    await play.start(rows=4, **ROUTES)
    assert await play.queue.live_routes() == set()
    first, second = await play.leases(2)
    assert await play.queue.live_routes() == names(first, second)
    await play.submit(first, routes_bytes=300)
    await play.submit(second, routes_bytes=200)
    stats = await play.queue.stats()
    assert (stats.routes_bytes, stats.max_routes_bytes) == (500, 1000)
    assert [group.routes for group in (await play.queue.take(play.fence, 1)).groups if group.routes] != []
    await play.finish(1)
    assert await play.queue.live_routes() == names(first, second), "a resumed learner trains them again"
    await play.commit(1)
    assert await play.queue.live_routes() == set()
    assert (await play.queue.stats()).routes_bytes == 0


async def test_a_lost_lease_is_wanted_no_more_and_its_row_gets_another_name(play: Play) -> None:
    await play.start(rows=4, **ROUTES)
    lease = await play.lease()
    await play.queue.release(lease, "stopped")
    assert await play.queue.live_routes() == set()
    again = await play.lease(worker="other")
    assert again.uid == lease.uid
    assert await play.queue.live_routes() == names(again) != names(lease)
    assert await play.submit(lease, routes_bytes=9) == SubmitOutcome.STALE
    assert (await play.queue.stats()).routes_bytes == 0


async def test_a_repeated_submission_counts_once(play: Play) -> None:
    await play.start(rows=4, **ROUTES)
    lease = await play.lease()
    await play.submit(lease, routes_bytes=300)
    assert await play.submit(lease, routes_bytes=300) == SubmitOutcome.DUPLICATE
    assert (await play.queue.stats()).routes_bytes == 300


async def test_leases_wait_while_the_budget_of_routes_is_full(play: Play) -> None:
    await play.start(max_staleness=9, **ROUTES)
    for lease in await play.leases(2):
        await play.submit(lease, routes_bytes=400)
    # The largest seen is reserved for each lease from now on.
    answer = await play.queue.lease("w", 0)
    assert not isinstance(answer, Lease)
    assert answer.reason == "bytes"
    assert answer.detail == ("queue.max_routes_bytes 1000 is full: 800 stored, 400 reserved for each of 0 leases")
    await play.batch(1)
    await play.finish(1)
    wait = await play.waits(2)
    assert (wait.reason, wait.checkpoint_now) == ("budget", True)
    assert "queue.max_routes_bytes 1000 is full (800 stored) and steps 1 to 1 are uncommitted" in wait.detail
    await play.commit(1)
    await play.lease(1)


async def test_the_first_batch_is_leased_whatever_its_routes_take(play: Play) -> None:
    await play.start(group_routes_bytes=5000, max_routes_bytes=1000)
    await play.leases(2)
    assert await play.refused() == "bytes"


@pytest.mark.parametrize("told", [1001, 2**53 + 1, 2**63 - 1, 2**64 - 1])
async def test_routes_larger_than_any_fail_the_try_and_leave_the_budget_as_it_was(play: Play, told: int) -> None:
    await play.start(max_staleness=9, max_tries=1, **ROUTES)
    absurd, sound = await play.leases(2)
    await play.submit(sound, routes_bytes=90)
    assert await play.submit(absurd, routes_bytes=told) == SubmitOutcome.INVALID
    stats = await play.queue.stats()
    assert (stats.routes_bytes, stats.rejected_by) == (90, {"failed:invalid": 1})
    assert "more than any group has: 1000" in str(await play.queue.peek(absurd.uid))
    # 10 leases of 90 bytes and the 90 that are stored are below 1000, 11 are not.
    await play.leases(10)
    assert await play.refused() == "bytes"


async def test_one_group_of_large_routes_reserves_no_more_than_four_of_the_largest_there_can_be(play: Play) -> None:
    await play.start(max_staleness=9, group_routes_bytes=100, max_routes_bytes=4000)
    large, other = await play.leases(2)
    await play.submit(large, routes_bytes=3900)
    await play.submit(other, routes_bytes=50)
    await play.batch(1)
    await play.finish(1)
    await play.commit(1)
    await play.leases(10, 1)
    assert (await play.queue.stats()).reserved_routes_bytes == 4000
    assert await play.refused(1) == "bytes"


@pytest.mark.parametrize("changes", [{}, {"max_routes_bytes": 1}])
async def test_without_replay_there_is_no_budget_of_routes(play: Play, changes: dict[str, int]) -> None:
    await play.start(max_staleness=9, **changes)
    for lease in await play.leases(4):
        await play.submit(lease)
    await play.lease()
    stats = await play.queue.stats()
    assert (stats.routes_bytes, stats.reserved_routes_bytes, stats.max_routes_bytes) == (0, 0, 0)


async def test_a_group_that_is_set_aside_keeps_its_routes_until_a_person_decides(play: Play) -> None:
    await play.start(**(ROUTES | {"max_routes_bytes": 1 << 20}))
    first, second = await play.leases(2)
    for lease in (first, second):
        await play.submit(lease, routes_bytes=300)
    await play.batch(1)
    await play.queue.set_aside(play.fence, 1, first.uid, "its routes are damaged")
    assert (await play.queue.stats()).routes_bytes == 300
    await play.finish(1)
    await play.commit(1)
    assert await play.queue.live_routes() == names(first)
    assert await play.queue.retry_set_aside(first.uid)
    assert await play.queue.live_routes() == set()
    again = await play.lease(1)
    assert again.uid == first.uid
    assert await play.queue.live_routes() == names(again)


async def test_routes_of_groups_that_were_set_aside_are_bounded(play: Play) -> None:
    # A sixteenth of the budget, so one of these groups keeps its body and routes.
    await play.start(rows=8, group_routes_bytes=1, max_routes_bytes=16 * 400)
    leases = await play.leases(4)
    for lease in leases:
        await play.submit(lease, routes_bytes=300)
    for step in (1, 2):
        await play.batch(step)
        for lease in leases[2 * step - 2 : 2 * step]:
            await play.queue.set_aside(play.fence, step, lease.uid, "damaged")
        await play.finish(step)
    await play.commit(2)
    assert await play.queue.live_routes() == names(leases[3])
    kept = await play.queue.set_aside_groups()
    assert [each.uid for each in kept] == [lease.uid for lease in leases]
    assert [each.bytes > 0 for each in kept] == [False, False, False, True]
    assert await play.queue.drop_set_aside(leases[3].uid)
    assert await play.queue.live_routes() == set()
