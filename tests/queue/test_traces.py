"""The traces that broke simpler protocols: each is here so that it never breaks this one."""

import pytest

from golongrl.queue import Lease, OutOfOrderError, RejectReason, SampleQueue, Stopped, SubmitOutcome

from .conftest import Play


async def train(play: Play, step: int) -> list[str]:
    uids = await play.batch(step)
    await play.finish(step)
    return uids


async def work(play: Play, version: int = 0, most: int = 100) -> int:
    """Lease and submit until refused; answers how many."""
    for done in range(most):
        lease = await play.queue.lease("w", version)
        if not isinstance(lease, Lease):
            return done
        await play.submit(lease)
    return most


# Rule 1: rows -----


async def test_batches_span_epochs(play: Play) -> None:
    """A partial batch at an epoch's end gave a row staleness 2 (B=2, eta=1, 3 rows)."""
    await play.start(rows=3, epochs=2)
    taken = []
    for step in (1, 2, 3):
        await work(play, version=step - 1)
        taken.append(await train(play, step))
    assert taken == [["0-0", "0-1"], ["0-2", "1-0"], ["1-1", "1-2"]]


async def test_end_of_run_with_fewer_rows_than_a_batch(play: Play) -> None:
    """End of run with 3 rows and B=4: take waited for ever."""
    await play.start(rows=3, groups_per_step=4)
    await work(play)
    assert await train(play, 1) == ["0-0", "0-1", "0-2"]
    assert (await play.queue.take(play.fence, 2)) == Stopped("exhausted", "every row is trained, rejected or set aside")
    assert await play.refused(version=1) == "exhausted"


@pytest.mark.parametrize("back", ["release", "expire", "lease"])
async def test_last_batch_waits_for_rows_that_may_come_back(play: Play, back: str) -> None:
    await play.start(rows=3)
    for lease in await play.leases(2):
        await play.submit(lease)
    await train(play, 1)
    last = await play.lease()
    assert (await play.waits(2)).leased == 1
    if back == "release":
        await play.queue.release(last, "test")
    elif back == "expire":
        await play.queue.advance(61)
    if back != "lease":
        assert (await play.waits(2)).leased == 0
        last = await play.lease(version=1)
    await play.submit(last)
    assert await play.batch(2) == ["0-2"]


# Rule 2: lease -----


async def test_lost_reply_gives_the_same_lease(play: Play) -> None:
    await play.start()
    first = await play.lease(request_id="r1")
    assert await play.lease(request_id="r1") == first
    assert (await play.lease(request_id="r2")).uid != first.uid


async def test_lost_lease_is_not_kept_alive_by_its_worker(play: Play) -> None:
    """Renewal by worker id kept a lease that the worker never heard of alive for ever."""
    await play.start()
    await play.lease()
    known = await play.lease()
    for tokens in (1, 2, 3):
        await play.queue.advance(30)
        assert await play.queue.renew("w", {known.token: tokens}) == {known.token: True}
    assert (await play.lease()).uid == "0-0"


async def test_tokens_are_never_reused_after_a_rollback(play: Play) -> None:
    """A token from INCR came back after the counter rolled back with the append-only file."""
    await play.start()
    tokens = set()
    for _ in range(3):
        lease = await play.lease()
        tokens.add(lease.token)
        await play.queue.release(lease, "test")
    assert len(tokens) == 3


async def test_new_process_of_a_worker_releases_the_old_ones_leases(redis_url: str, run_name: str, play: Play) -> None:
    await play.start()
    old = await play.lease()
    async with SampleQueue.from_url(redis_url, run_name) as newer:
        again = await newer.lease("w", 0)
        assert isinstance(again, Lease)
        assert again.uid == old.uid
        assert await play.submit(old) == SubmitOutcome.STALE
        # A message of the old process that was still on its way takes nothing away from the new one.
        assert await play.refused() == "superseded"
        assert (await newer.renew("w", {again.token: 1})) == {again.token: True}


# Rule 3: renew, and tokens everywhere -----


async def test_hung_engine_with_a_live_heartbeat_is_not_waited_for(play: Play) -> None:
    await play.start()
    hung = await play.lease()
    alive = []
    for _ in range(8):
        await play.queue.advance(50)
        alive.append((await play.queue.renew("w", {hung.token: 5}))[hung.token])
    # 5 tokens were progress once, at 50 s; 300 s later they no longer are.
    assert alive == [True] * 6 + [False] * 2
    assert (await play.queue.stats()).redone_by == {"stalled": 1}


async def test_scoring_after_generating_is_progress(play: Play) -> None:
    await play.start(lease_s=1000)
    lease = await play.lease()
    for phase in ("generating", "scoring"):
        await play.queue.advance(250)
        assert (await play.queue.renew("w", {lease.token: 0}, {lease.token: phase}))[lease.token]
    await play.queue.advance(301)
    assert not (await play.queue.renew("w", {lease.token: 0}, {lease.token: "generating"}))[lease.token]


async def test_stale_token_can_do_nothing(play: Play) -> None:
    """Unfenced, a row was both rejected and trained."""
    await play.start(rows=2)
    old = await play.lease()
    await play.queue.advance(61)
    new = await play.lease()
    assert new.uid == old.uid
    assert not await play.queue.reject(old, RejectReason.OVERLONG)
    assert not await play.queue.release(old, "late")
    assert await play.queue.renew("w", {old.token: 1}) == {old.token: False}
    assert await play.submit(old) == SubmitOutcome.STALE
    assert await play.submit(new) == SubmitOutcome.ACCEPTED
    assert await play.submit(new) == SubmitOutcome.DUPLICATE
    assert not await play.queue.reject(new, RejectReason.OVERLONG)


async def test_reject_is_idempotent(play: Play) -> None:
    await play.start()
    lease = await play.lease()
    assert await play.queue.reject(lease, RejectReason.FEW_SCORED)
    assert await play.queue.reject(lease, RejectReason.FEW_SCORED)
    assert (await play.queue.stats()).rejected_by == {"few_scored": 1}


async def test_engine_restarted_in_mid_group(play: Play) -> None:
    """An engine restarted at version 0: its tokens are older than the lease promised."""
    await play.start()
    await work(play)
    await train(play, 1)
    lease = await play.lease(version=1)
    assert await play.submit(lease, version=0) == SubmitOutcome.RETURNED
    assert (await play.lease(version=1)).uid == lease.uid


# Rule 4: take -----


async def test_take_gives_the_same_batch_to_every_question(play: Play) -> None:
    await play.start()
    await work(play)
    first = await play.queue.take(play.fence, 1)
    await work(play)
    again = await play.queue.take(play.fence, 1)
    assert [group.uid for group in first.groups] == [group.uid for group in again.groups]  # type: ignore[union-attr]
    assert (first.replayed, again.replayed) == (False, True)  # type: ignore[union-attr]


@pytest.mark.parametrize("eta", [1, 2, 4])
async def test_prefetching_take_keeps_the_bound(play: Play, eta: int) -> None:
    """Judged against Redis's v, a prefetched batch was eta + 1 stale."""
    await play.start(groups_per_step=1, max_staleness=eta, order="ready")
    await work(play)
    # All are of version 0; batch eta + 1 is trained from version eta, so these are the last fresh enough.
    for step in range(1, eta + 2):
        assert await play.batch(step) == [f"0-{step - 1}"]
    late = await play.lease(version=1)
    await play.submit(late)
    assert await play.batch(eta + 2) == [late.uid]


async def test_no_look_ahead_no_deadlock_beyond_eta_1(play: Play) -> None:
    """Looking one step ahead deadlocked: L1 L2 L3@0, S3 T F, L4@1, S4 T F, and 1 and 2 expire with one place left."""
    await play.start(groups_per_step=1, max_staleness=2)
    one, two, three = await play.leases(3)
    await play.submit(three)
    # In lease order 3 waits for its turn.
    assert (await play.waits(1)).uid == one.uid
    await play.submit(one)
    assert await train(play, 1) == [one.uid]
    four = await play.lease(version=1)
    await play.submit(four)
    await play.submit(two)
    for step, lease in ((2, two), (3, three), (4, four)):
        assert await train(play, step) == [lease.uid]


async def test_the_same_trace_by_readiness_drops_instead(play: Play) -> None:
    await play.start(groups_per_step=1, max_staleness=2, order="ready")
    one, two, three = await play.leases(3)
    await play.submit(three)
    assert await train(play, 1) == [three.uid]
    four = await play.lease(version=1)
    await play.submit(four)
    assert await train(play, 2) == [four.uid]
    await play.submit(one)
    assert await train(play, 3) == [one.uid]
    # base 2: group 2 of version 0 could not be trained at base 3.
    assert await play.submit(two) == SubmitOutcome.STALE
    assert (await play.queue.stats()).redone_by == {"given_up": 1}


async def test_slow_row_is_given_up_twice_then_waited_for(play: Play) -> None:
    """A slow row starved: it was given up 99 times in 200 steps."""
    await play.start(rows=60, groups_per_step=1, max_staleness=1, order="ready")
    slow = await play.lease()
    given_up, step = 0, 1
    while given_up < 2:
        fast = await play.lease(version=step - 1)
        if fast.uid == slow.uid:
            slow = fast
            continue
        await play.submit(fast)
        await train(play, step)
        step += 1
        given_up = (await play.queue.stats()).redone_by.get("given_up", 0)
    slow = await play.lease(version=step - 1)
    assert slow.uid == "0-0"
    held_up = False
    for _ in range(3):
        lease = await play.queue.lease("w", step - 1)
        if isinstance(lease, Lease):
            await play.submit(lease)
        answer = await play.queue.take(play.fence, step)
        if hasattr(answer, "groups"):
            await play.finish(step)
            step += 1
        else:
            assert (answer.uid, answer.worker, answer.phase) == ("0-0", "w", "leased")
            held_up = True
    assert held_up
    await play.submit(slow)
    assert await play.batch(step) == ["0-0"]


# Rule 5: finish -----


async def test_finish_again_does_nothing(play: Play) -> None:
    """With INCR a retried finish gave a version without weights."""
    await play.start()
    await work(play)
    await play.batch(1)
    for _ in range(3):
        await play.finish(1)
    assert (await play.queue.stats()).version == 1
    with pytest.raises(OutOfOrderError):
        await play.finish(3)


# Rule 6: attach -----


async def test_resume_replays_while_the_version_stays(play: Play) -> None:
    """Lowering v on resume (B=1, eta=0: L1 S T F, L2@1, crash, v=0, L3@1 admitted) gave two groups one place."""
    await play.start(groups_per_step=1, max_staleness=0)
    await work(play)
    first = await train(play, 1)
    await play.lease(version=1)
    attached = await play.queue.attach(0)
    assert (attached.version, attached.committed) == (1, 0)
    assert await play.refused(version=1) == "full"
    play.fence = attached.token
    assert await train(play, 1) == first
    assert await play.refused(version=1) == "full"


async def test_attach_refuses_what_is_committed_or_lost(play: Play) -> None:
    await play.start()
    await work(play)
    await train(play, 1)
    await play.commit(1)
    with pytest.raises(OutOfOrderError, match="resume from checkpoint 1"):
        await play.queue.attach(0)
    with pytest.raises(OutOfOrderError, match="behind the checkpoint"):
        await play.queue.attach(5)


async def test_weights_never_go_back(play: Play) -> None:
    await play.start()
    await work(play)
    await train(play, 1)
    await play.announce(1)
    assert (await play.announce(0)).version == 1


async def test_other_lineage_is_redone_at_eta_0_only(play: Play) -> None:
    await play.start(groups_per_step=1, max_staleness=0)
    await play.announce(0, "one")
    lease = await play.lease(lineage="one")
    await play.submit(lease)
    await play.batch(1)
    play.fence = (await play.queue.attach(0)).token
    await play.announce(0, "two")
    assert await play.refused(lineage="one") == "lineage"
    redone = await play.lease(lineage="two")
    assert redone.uid == lease.uid
    await play.submit(redone)
    assert await play.batch(1) == [lease.uid]


async def test_retrained_step_keeps_its_batch_under_a_new_lineage(play: Play) -> None:
    """Version 1 was announced, the learner died before finish, and its replay differs in a bit: batch 1 is what the new
    version 1 was trained on, so announcing it must not dissolve batch 1."""
    await play.start(groups_per_step=1, max_staleness=0)
    await play.announce(0, "one")
    await play.submit(await play.lease(lineage="one"))
    await play.batch(1)
    await play.announce(1, "one")
    early = await play.lease(version=1, lineage="one")
    play.fence = (await play.queue.attach(0)).token
    await play.batch(1)
    await play.announce(1, "two")
    assert await play.batch(1) == ["0-0"]
    await play.finish(1)
    assert await play.submit(early) == SubmitOutcome.STALE


# Rule 7: commit -----


async def test_crash_between_checkpoint_and_commit_leaks_nothing(play: Play) -> None:
    await play.start()
    await work(play)
    await train(play, 1)
    assert (await play.queue.stats()).in_batches == 2
    await play.queue.attach(1)
    stats = await play.queue.stats()
    assert (stats.in_batches, stats.trained, stats.committed) == (0, 2, 1)


# Rule 8: bytes -----


async def test_budget_full_of_uncommitted_steps_asks_for_a_checkpoint(play: Play) -> None:
    """B=1, a checkpoint every 5 steps: three steps filled the budget, no lease, no checkpoint 5."""
    await play.start(groups_per_step=1, max_bytes=600)
    step = 0
    for step in range(1, 6):
        await work(play, version=step - 1)
        answer = await play.queue.take(play.fence, step)
        if hasattr(answer, "checkpoint_now"):
            break
        await play.finish(step)
    assert answer.checkpoint_now  # type: ignore[union-attr]
    assert answer.reason == "budget"  # type: ignore[union-attr]
    assert step < 5
    await play.commit(step - 1)
    await work(play, version=step - 1)
    assert await train(play, step)


async def test_lease_is_refused_for_bytes_but_never_below_a_batch(play: Play) -> None:
    await play.start(groups_per_step=2, max_staleness=4, max_bytes=1, group_bytes=10)
    leases = await play.leases(2)
    assert await play.refused() == "bytes"
    for lease in leases:
        assert await play.submit(lease) == SubmitOutcome.ACCEPTED
    assert await play.refused() == "bytes"
    assert len(await train(play, 1)) == 2


# Rule 9: tasks -----


async def test_task_minimum_gives_up_rather_than_deadlock(play: Play) -> None:
    """B=2, eta=1, minimum 2: one each of four tasks ready, and nothing else can come."""
    await play.start(rows=20, tasks=[f"t{row % 4}" for row in range(20)], min_prompts_per_task=2)
    assert await work(play) == 4
    assert len(await train(play, 1)) == 2
    stats = await play.queue.stats()
    assert stats.tasks_given_up == 1


async def test_task_minimum_swaps_where_that_harms_nobody(play: Play) -> None:
    await play.start(rows=20, tasks=["a", "b", "a", "b"] * 5, min_prompts_per_task=2)
    assert await work(play) == 4
    assert await train(play, 1) == ["0-0", "0-2"]
    assert await train(play, 2) == ["0-1", "0-3"]
    assert (await play.queue.stats()).tasks_given_up == 0


async def test_task_minimum_looks_at_every_later_place(play: Play) -> None:
    """At eta=2 a second swap would leave four groups of version 0 for the last batch that may train two of them."""
    tasks = ["a", "b", "b", "c", "d", "f", "e", "e", *"abcdef"]
    await play.start(rows=14, tasks=tasks, max_staleness=2, min_prompts_per_task=2)
    assert await work(play) == 6
    assert await train(play, 1) == ["0-1", "0-2"]
    assert await work(play, version=1) == 2
    assert await train(play, 2) == ["0-0", "0-3"]
    assert await train(play, 3) == ["0-4", "0-5"]
    assert await train(play, 4) == ["0-6", "0-7"]


async def test_task_minimum_waits_for_a_group_that_may_help(play: Play) -> None:
    await play.start(rows=20, tasks=["a", "b", "b", "a"] * 5, min_prompts_per_task=2)
    one, two, three, four = await play.leases(4)
    await play.submit(one)
    await play.submit(two)
    assert (await play.waits(1)).reason == "tasks"
    await play.submit(four)
    assert await play.batch(1) == [one.uid, four.uid]
    await play.submit(three)
    assert await play.batch(2) == [two.uid, three.uid]


async def test_task_minimum_does_not_wait_for_ever(play: Play) -> None:
    await play.start(rows=20, tasks=["a", "b"] * 10, min_prompts_per_task=2)
    for lease in await play.leases(2):
        await play.submit(lease)
    assert (await play.waits(1)).reason == "tasks"
    await play.queue.advance(60)
    assert await play.batch(1) == ["0-0", "0-1"]


# Filtering -----


async def test_too_long_an_all_equal_stretch_stops_the_run(play: Play) -> None:
    await play.start(rows=50, max_gen_batches=2)
    for _ in range(3):
        await play.queue.reject(await play.lease(), RejectReason.ALL_EQUAL)
    await play.submit(await play.lease())
    assert (await play.queue.stats()).all_equal_streak == 0
    for _ in range(4):
        await play.queue.reject(await play.lease(), RejectReason.ALL_EQUAL)
    assert await play.refused() == "all_equal"
    stopped = await play.queue.take(play.fence, 1)
    assert isinstance(stopped, Stopped)
    assert "4 groups in a row had equal rewards" in stopped.detail
    assert (await play.queue.stats()).rejected_by == {"all_equal": 7}
