"""The rules of the run protocol (golongrl/queue/README.md), one by one, on a real server."""

import numpy as np
import pytest

from golongrl.queue import (
    Batch,
    Behind,
    FencedError,
    Lease,
    NotSetUpError,
    OutOfOrderError,
    SampleQueue,
    SettingsMismatchError,
    Stopped,
    SubmitOutcome,
)
from golongrl.queue.errors import QueueBehindError
from golongrl.restart import FINAL_CODES
from support.groups import group_for, queue_settings

from .conftest import Play


async def test_worker_before_learner_is_told_to_wait(queue: SampleQueue) -> None:
    with pytest.raises(NotSetUpError, match="its learner sets it up"):
        await queue.lease("w", 0)


async def test_lease_to_commit(play: Play) -> None:
    await play.start(rows=4)
    first, second = await play.leases(2)
    assert (first.uid, second.uid) == ("0-0", "0-1")
    assert await play.submit(second) == SubmitOutcome.ACCEPTED
    assert (await play.waits(1)).uid == "0-0"
    assert await play.submit(first) == SubmitOutcome.ACCEPTED
    assert await play.batch(1) == ["0-0", "0-1"]
    await play.finish(1)
    await play.commit(1)
    stats = await play.queue.stats()
    assert (stats.version, stats.committed, stats.trained, stats.bytes, stats.unread) == (1, 1, 2, 0, 2)
    assert stats.returned == 0


@pytest.mark.parametrize(("eta", "admitted"), [(0, 2), (1, 4), (2, 6), (4, 10)])
async def test_admission_opens_eta_plus_one_batches(play: Play, eta: int, admitted: int) -> None:
    await play.start(max_staleness=eta)
    await play.leases(admitted)
    assert await play.refused() == "full"


async def test_engine_behind_gets_less(play: Play) -> None:
    await play.start()
    for lease in await play.leases(2):
        await play.submit(lease)
    await play.batch(1)
    await play.finish(1)
    await play.leases(2, version=0)
    assert await play.refused(version=0) == "behind"
    await play.leases(2, version=1)
    assert await play.refused(version=1) == "full"
    assert await play.refused(version=3) == "ahead"


async def test_setup_again_is_nothing_but_other_promises_are_refused(play: Play) -> None:
    await play.start()
    await play.lease()
    await play.start(lease_s=30.0)
    assert (await play.queue.stats()).leased == 1
    for change in ({"groups_per_step": 3}, {"max_staleness": 2}, {"order": "ready"}, {"rows": 9}):
        with pytest.raises(SettingsMismatchError, match=r"exists with") as refused:
            await play.start(**change)
        assert refused.value.exit_code in FINAL_CODES, "no restart of the learner would change it"


async def test_a_worker_that_reads_other_rows_gets_none(play: Play) -> None:
    """A worker that started again, after the data of the run were prepared again."""
    await play.start(data="one", held_out="held")
    await play.announce(0)
    await play.queue.validation.open(play.fence, 0, "one", 2)
    with pytest.raises(SettingsMismatchError, match="prepared again"):
        await play.lease(data="other")
    with pytest.raises(SettingsMismatchError, match="prepared again"):
        await play.queue.validation.lease(0, "one", 1, "one")
    assert (await play.queue.stats()).leased == 0
    await play.lease(data="one")
    assert len(await play.queue.validation.lease(0, "one", 1, "held")) == 1
    with pytest.raises(SettingsMismatchError, match="data one, not other"):
        await play.start(data="other")
    # Rows to validate on may be others after the learner's restart.
    await play.start(data="one", held_out="more")
    assert len(await play.queue.validation.lease(0, "one", 1, "more")) == 1


async def test_a_run_with_steps_behind_it_begins_after_them(queue: SampleQueue) -> None:
    """From a checkpoint, with a queue that is new or lost its data: nothing trained before is dealt again."""
    settings = queue_settings(groups_per_step=2, max_staleness=0)
    order = [np.array(rows, np.int32) for rows in ([3, 1, 0, 2], [0, 1, 2, 3])]
    behind = Behind(2, np.array([(0, 3), (0, 0), (0, 1), (1, 2)], np.int32))
    await queue.setup(settings, order, ["a"] * 4, behind)
    # A restart knows of a later checkpoint, or of none; what is left to deal stays what it was.
    await queue.setup(settings, order, ["a"] * 4, Behind(3, behind.rows[:1]))
    await queue.setup(settings, order, ["a"] * 4)
    with pytest.raises(SettingsMismatchError, match="digest"):
        await queue.setup(settings, order[:1], ["a"] * 4, behind)
    for step in (0, 1):
        with pytest.raises(OutOfOrderError):
            await queue.attach(step)
    with pytest.raises(QueueBehindError) as behind_it:
        await queue.attach(3)
    assert behind_it.value.exit_code in FINAL_CODES, "no restart of the learner would change it"
    attached = await queue.attach(2)
    assert (attached.version, attached.committed) == (2, 2)
    assert [(await queue.peek(uid)).state for uid in ("0-3", "1-2", "0-2")] == ["trained", "trained", "unread"]
    dealt = []
    for step in (3, 4):
        for _ in range(2):
            lease = await queue.lease("w", step - 1)
            assert isinstance(lease, Lease)
            dealt.append(lease.uid)
            await queue.submit(lease, group_for(lease))
        assert isinstance(await queue.take(attached.token, step), Batch)
        await queue.finish(attached.token, step)
    assert dealt == ["0-2", "1-0", "1-1", "1-3"]
    await queue.commit(attached.token, 4)
    stopped = await queue.lease("w", 4)
    assert isinstance(stopped, Stopped)
    assert stopped.reason == "exhausted"


async def test_fenced_learner_can_do_nothing(play: Play) -> None:
    await play.start()
    old = play.fence
    new = (await play.queue.attach(0)).token
    for call in (
        play.queue.ensure_attached(old),
        play.queue.take(old, 1),
        play.queue.finish(old, 1),
        play.queue.commit(old, 0),
        play.announce(0),
    ):
        with pytest.raises(FencedError):
            await call
    await play.queue.ensure_attached(new)
    assert await play.queue.take(new, 1)


async def test_group_must_be_the_leases_row(play: Play) -> None:
    await play.start()
    one, two = await play.leases(2)
    with pytest.raises(ValueError, match="does not belong"):
        await play.queue.submit(one, group_for(two))


async def test_steps_follow_one_another(play: Play) -> None:
    await play.start()
    with pytest.raises(OutOfOrderError):
        await play.queue.take(play.fence, 2)
    with pytest.raises(OutOfOrderError):
        await play.finish(1)
    with pytest.raises(OutOfOrderError):
        await play.commit(1)
    with pytest.raises(OutOfOrderError):
        await play.announce(2)


async def test_stop_reaches_everybody_until_the_next_attach(play: Play) -> None:
    await play.start()
    await play.queue.stop(play.fence, "complete", "all steps done")
    assert await play.queue.lease("w", 0) == Stopped("complete", "all steps done")
    assert await play.queue.take(play.fence, 1) == Stopped("complete", "all steps done")
    await play.queue.attach(0)
    await play.lease()
