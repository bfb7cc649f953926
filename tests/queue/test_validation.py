"""The validation round on a real server: every row answered once, whoever dies on the way."""

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from golongrl.queue import (
    FencedError,
    OutOfOrderError,
    QueueDamagedError,
    UnreadableGroupError,
    ValidationProgress,
    ValidationResult,
)
from golongrl.queue.validation import pack, unpack

from .conftest import SETTINGS, Play

LEASE_S = SETTINGS.lease_s


async def opened(play: Play, rows: int = 5, version: int = 0) -> Play:
    await play.start()
    await play.announce(version)
    await play.queue.validation.open(play.fence, version, "one", rows)
    return play


def result(row: int) -> ValidationResult:
    return ValidationResult(row, 0.5, "", f"answer {row} é", 3, "stop", "w")


async def test_rows_are_shared_out_and_come_back_answered(play: Play) -> None:
    work = (await opened(play)).queue.validation
    first, second = await work.lease(0, "one", 2), await work.lease(0, "one", 9)
    assert [item.row for item in first + second] == [0, 1, 2, 3, 4]
    assert await work.lease(0, "one", 1) == []
    assert await work.progress() == ValidationProgress(todo=0, leased=5, done=0)
    for item in first + second:
        assert await work.submit(item, result(item.row))
        assert not await work.submit(item, result(item.row)), "a repeat changes nothing"
    assert await work.progress() == ValidationProgress(0, 0, 5)
    assert await work.results(5) == [result(row) for row in range(5)]
    await work.close(play.fence)
    assert await work.results(5) == []
    assert await work.lease(0, "one", 1) == []


@pytest.mark.parametrize("key", ["validation_todo", "validation_leased", "validation_tokens", "validation_done"])
async def test_a_key_of_the_round_that_is_set_back_is_named_and_the_round_begins_again(
    play: Play, redis_url: str, key: str
) -> None:
    work = (await opened(play)).queue.validation
    items = await work.lease(0, "one", 3)
    with redis.Redis.from_url(redis_url) as raw:
        name = play.queue._connection.key(key)
        await work.submit(items[0], result(0))
        older = raw.dump(name)
        await work.submit(items[1], result(1))
        await work.release(items[2], "x", lost=False)
        raw.restore(name, 0, older, replace=True)
        with pytest.raises(QueueDamagedError, match=r"one of the keys of run .* was set back to an older value"):
            await work.progress()
        assert await work.lease(0, "one", 1) == []
    await work.open(play.fence, 0, "one", 5)
    assert await work.progress() == ValidationProgress(todo=5, leased=0, done=0)


async def test_only_an_engine_of_exactly_these_weights_gets_rows(play: Play) -> None:
    work = (await opened(play)).queue.validation
    assert await work.lease(1, "one", 1) == []
    assert await work.lease(0, "other", 1) == []
    assert len(await work.lease(0, "one", 1)) == 1


async def test_a_lost_workers_rows_return_and_its_late_answer_is_refused(play: Play) -> None:
    work = (await opened(play, rows=2)).queue.validation
    [gone], [alive] = await work.lease(0, "one", 1), await work.lease(0, "one", 1)
    await play.queue.advance(LEASE_S - 1)
    assert await work.renew([alive]) == [True]
    await play.queue.advance(2)
    [again] = await work.lease(0, "one", 1)
    assert again.row == gone.row
    assert await work.renew([gone, alive, again]) == [False, True, True]
    assert not await work.submit(gone, result(gone.row))
    assert not await work.release(gone, "stopped", lost=False)
    assert await work.submit(again, result(again.row))


async def test_a_row_that_is_always_lost_ends_unscored_and_one_given_back_does_not(play: Play) -> None:
    work = (await opened(play, rows=1)).queue.validation
    for _ in range(5):
        [item] = await work.lease(0, "one", 1)
        assert await work.release(item, "stopped", lost=False)
    for _ in range(2):
        assert len(await work.lease(0, "one", 1)) == 1
        await play.queue.advance(LEASE_S + 1)
    [item] = await work.lease(0, "one", 1)
    await work.release(item, "the engine died", lost=True)
    assert await work.progress() == ValidationProgress(0, 0, 1)
    [ended] = await work.results(1)
    assert (ended.reward, ended.reason) == (None, "given up after 3 attempts, the last one: the engine died")


async def test_a_restarted_learner_goes_on_with_the_round_and_the_old_one_can_do_nothing(play: Play) -> None:
    work = (await opened(play)).queue.validation
    [item, _] = await work.lease(0, "one", 2)
    await work.submit(item, result(item.row))
    old = play.fence
    play.fence = (await play.queue.attach(0)).token
    await work.open(play.fence, 0, "one", 5)
    assert await work.progress() == ValidationProgress(todo=3, leased=1, done=1)
    with pytest.raises(FencedError):
        await work.open(old, 0, "one", 5)
    with pytest.raises(FencedError):
        await work.close(old)


async def test_other_weights_begin_another_round_and_only_announced_ones_do(play: Play) -> None:
    work = (await opened(play)).queue.validation
    [item] = await work.lease(0, "one", 1)
    with pytest.raises(OutOfOrderError):
        await work.open(play.fence, 1, "one", 5)
    await play.announce(1)
    await work.open(play.fence, 1, "one", 3)
    assert await work.progress() == ValidationProgress(3, 0, 0)
    assert await work.renew([item]) == [False]
    assert not await work.submit(item, result(item.row))


async def test_results_count_in_the_byte_budget_until_the_round_is_closed(play: Play) -> None:
    work = (await opened(play, rows=3)).queue.validation
    [taken] = await play.leases(1)
    await play.submit(taken)
    samples = (await play.queue.stats()).bytes
    first, second, third = await work.lease(0, "one", 3)
    stored = 0
    for item in (first, second):
        assert await work.submit(item, result(item.row))
        assert not await work.submit(item, result(item.row))
        stored += len(pack(result(item.row)))
        assert (await play.queue.stats()).bytes == samples + stored
    for _ in range(3):
        await work.release(third, "the engine died", lost=True)
        leased = await work.lease(0, "one", 1)
        third = leased[0] if leased else third
    assert await work.progress() == ValidationProgress(0, 0, 3)
    assert (await play.queue.stats()).bytes > samples + stored, "a row given up has a result, too"
    await work.close(play.fence)
    assert (await play.queue.stats()).bytes == samples
    await work.close(play.fence)
    assert (await play.queue.stats()).bytes == samples


async def test_results_that_fill_the_budget_hold_up_leases_and_nothing_else(play: Play) -> None:
    await play.start(max_bytes=1000, max_staleness=3)
    await play.announce(0)
    work = play.queue.validation
    await work.open(play.fence, 0, "one", 1)
    [item] = await work.lease(0, "one", 1)
    assert await work.submit(item, ValidationResult(0, 1.0, "", "x" * 2000, 500, "stop", "w"))
    held = await play.leases(SETTINGS.groups_per_step)
    assert await play.refused() == "bytes"
    for lease in held:
        await play.submit(lease)
    await play.batch(1)
    await work.close(play.fence)
    assert (await play.queue.stats()).bytes < 1000


async def test_it_takes_nothing_from_the_sample_queue(play: Play) -> None:
    await opened(play, rows=50)
    await play.queue.validation.lease(0, "one", 50)
    assert len(await play.leases(4)) == 4
    assert (await play.queue.stats()).bytes == 0


@given(st.builds(ValidationResult, st.just(7), st.none() | st.floats(0, 1), st.text(max_size=9), st.text()))
def test_a_result_survives_the_wire(made: ValidationResult) -> None:
    assert unpack(7, pack(made)) == made


def test_anything_else_is_refused() -> None:
    with pytest.raises(UnreadableGroupError, match="validation row 7"):
        unpack(7, b"\x81\xa1x\x01")
