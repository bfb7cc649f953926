"""The pool's promise: every item gets one answer, and a bad item costs nobody but itself."""

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import misbehave
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl.reward.items import Answer, Lost, encode
from golongrl.reward.pool import NoWorkerError, PoolFullError, PoolNotReadyError, WorkerPool, retry_after_s

MISDEEDS = ["HANG", "HANG_IN_C", "SEGFAULT", "KILLED", "EXIT", "RAISE", "EAT_MEMORY", "CLOSE"]


async def settled(made: WorkerPool, workers: int) -> None:
    """All workers are warm, and those before them are buried."""
    async with asyncio.timeout(60):
        while made.warm < workers or made._tasks:
            await asyncio.sleep(0.01)


@asynccontextmanager
async def pool(workers: int = 2, **options: int) -> AsyncIterator[WorkerPool]:
    made = WorkerPool(misbehave.score, workers=workers, memory_bytes=2 << 30, **options)
    await made.start()
    try:
        await settled(made, workers)
        yield made
    finally:
        await made.stop()


def payload(response: str) -> bytes:
    return encode("EM", response, None, {})


async def answers(made: WorkerPool, responses: list[str], deadline_s: float = 60.0) -> list[Answer]:
    async with asyncio.timeout(120):
        return await asyncio.gather(*made.submit([payload(r) for r in responses], deadline_s))


def values(got: list[Answer]) -> list[object]:
    return [a.value.kind if isinstance(a.value, Lost) else a.value.score for a in got]


async def test_answers_keep_the_order_of_the_batch() -> None:
    async with pool() as made:
        assert values(await answers(made, ["x" * n for n in range(100)])) == [n / 1000 for n in range(100)]


async def test_a_large_item_passes_both_ways() -> None:
    async with pool(workers=1) as made:
        assert values(await answers(made, ["x" * 3_000_123, "\udc80 lone", "NOISE"])) == [0.123, 0.006, 0.005]


@pytest.mark.parametrize("misdeed", MISDEEDS)
async def test_a_bad_item_costs_only_itself(misdeed: str) -> None:
    async with pool() as made:
        hangs = "HANG" in misdeed
        responses = ["a", misdeed, "ab", "abc", misdeed, "abcd"]
        sent = [made.submit([payload(r)], 1.0 if r == misdeed and hangs else 300.0) for r in responses]
        got = await asyncio.gather(*(answer for (answer,) in sent))
        lost = "deadline" if hangs else "died"
        assert values(got) == [0.001, lost, 0.002, 0.003, lost, 0.004]
        assert values(await answers(made, ["abcde"] * 4)) == [0.005] * 4
        assert made.stats.ended[lost] == 2


async def test_the_reason_says_what_happened() -> None:
    async with pool() as made:
        got = await answers(made, ["SEGFAULT", "EXIT"]) + await answers(made, ["HANG"], deadline_s=0.5)
        reasons = [a.value.reason for a in got]
        assert "SIGSEGV" in reasons[0]
        assert "exit code 3" in reasons[1]
        assert "0.5 s" in reasons[2]


async def test_each_item_has_its_own_deadline_not_the_batch() -> None:
    async with pool(workers=1) as made:
        got = await answers(made, ["SLEEP:1.0"] * 8, deadline_s=6.9)  # 8 s of work behind one worker
        assert all(not isinstance(a.value, Lost) for a in got)
        assert got[7].waited_s > 6.9 > got[7].computed_s


async def test_a_worker_killed_while_idle_costs_no_item() -> None:
    async with pool() as made:
        before = made.stats.started
        for child in psutil.Process().children(recursive=True):
            if child.pid in {worker.process.pid for worker in made._workers}:
                os.kill(child.pid, signal.SIGKILL)
        async with asyncio.timeout(60):
            while made.stats.started < before + 2:
                await asyncio.sleep(0.01)
        assert values(await answers(made, ["ab"] * 8)) == [0.002] * 8


async def test_a_full_queue_takes_all_of_a_batch_or_nothing() -> None:
    async with pool(workers=1, max_queued=3) as made:
        first = made.submit([payload("SLEEP:0.5")], 60.0)
        more = made.submit([payload("a")] * 3, 60.0)
        with pytest.raises(PoolFullError) as full:
            made.submit([payload("b")] * 2, 5.0)
        assert full.value.retry_after_s >= 1
        assert made.queued == 3
        assert values(await asyncio.gather(*first, *more))[1:] == [0.001] * 3


async def test_a_dropped_item_is_never_computed() -> None:
    async with pool(workers=1) as made:
        (first,) = made.submit([payload("SLEEP:0.3")], 60.0)
        for future in made.submit([payload("KILLED")] * 5, 60.0):
            future.cancel()
        await first
        assert values(await answers(made, ["a"])) == [0.001]
        assert made.stats.ended["died"] == 0


async def test_workers_are_recycled_without_losing_an_item() -> None:
    async with pool(workers=2, recycle_after=5) as made:
        assert values(await answers(made, ["abc"] * 60)) == [0.003] * 60
        assert made.stats.ended["recycled"] >= 8


async def test_nothing_is_left_behind() -> None:
    this = psutil.Process()
    async with pool() as made:
        await answers(made, ["a", "HANG", "SEGFAULT"], deadline_s=0.3)
        await settled(made, 2)
        baseline = this.num_fds()
        for _ in range(5):
            await answers(made, ["a", "HANG", "SEGFAULT"], deadline_s=0.1)
        await settled(made, 2)
        assert this.num_fds() <= baseline + 4
        pids = [worker.process.pid for worker in made._workers]
    assert not any(psutil.pid_exists(pid) for pid in pids if pid is not None)


def unstartable() -> None:
    """Never called: its module is missing in the worker."""


async def test_a_pool_whose_workers_cannot_start_says_so() -> None:
    made = WorkerPool(unstartable, workers=1, preload=["no_such_module_anywhere"])
    await made.start()
    try:
        with pytest.raises(PoolNotReadyError, match="no worker is warm yet"):
            made.submit([payload("a")], 1.0)
        with pytest.raises(NoWorkerError, match="no worker process can be started: its process ended as it started"):
            await made.wait_warm()
        assert made.broken
        assert made.stats.ended["start_failed"] >= 3
    finally:
        await made.stop()


async def test_a_pool_without_descriptors_says_so_and_starts_once_there_are_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = socket.socketpair

    def refused() -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socketpair", refused)
    made = WorkerPool(misbehave.score, workers=1)
    await made.start()
    with pytest.raises(NoWorkerError, match="can be started: too many open files in this process; raise the limit"):
        await made.wait_warm()
    # A shortage that passes costs no worker for good.
    monkeypatch.setattr(socket, "socketpair", real)
    async with pool(workers=1) as made:
        monkeypatch.setattr(socket, "socketpair", refused)
        (worker,) = made._workers
        worker.end("recycled")
        while made.stats.ended["start_failed"] < 2:
            await asyncio.sleep(0.01)
        monkeypatch.setattr(socket, "socketpair", real)
        assert values(await answers(made, ["a"])) == [0.001]


@given(st.integers(0, 10**6), st.integers(1, 512), st.floats(0, 100))
def test_retry_after_is_bounded_and_grows_with_the_queue(queued: int, workers: int, seconds: float) -> None:
    now, later = retry_after_s(queued, workers, seconds), retry_after_s(queued + 100, workers, seconds)
    assert 1 <= now <= later <= 60


async def test_it_says_what_its_items_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("golongrl.reward.pool.SHORT_S", 0.0)
    async with pool(workers=1) as made:
        assert made.waits() == []
        futures = made.submit([payload("HANG"), payload("x"), payload("y")], 300.0)
        score, free = sorted(made.waits(), key=lambda wait: wait.what, reverse=True)[:2]
        assert {(wait.on, wait.count, wait.unit) for wait in (score, free)} == {
            ("reward", 1, "item"),
            ("reward", 2, "item"),
        }
        (deadline,) = {wait.deadline_s for wait in (score, free)} - {None}
        assert deadline > 300.0  # its process is killed at 300 s
        for future in futures:
            future.cancel()
    cold = WorkerPool(misbehave.score, workers=1)
    await cold.start()
    (starting,) = cold.waits()
    assert (starting.what, starting.deadline_s) == ("its processes to start", cold.start_timeout_s)
    await cold.stop()


ORPHAN = """
import socket, struct, sys, pickle
from golongrl.reward.worker import frame, main
ours, theirs = socket.socketpair()
sent = {"nothing": b"", "cut": frame(pickle.dumps((1,)))[:-1], "header": b"\\0\\0", "whole": frame(pickle.dumps((1,)))}
ours.sendall(sent[sys.argv[1]])
ours.close()
main(theirs, abs, (), 0)
"""


@pytest.mark.parametrize("sent", ["nothing", "cut", "header", "whole"])
def test_a_worker_whose_service_was_killed_ends_without_a_word(sent: str) -> None:
    done = subprocess.run([sys.executable, "-c", ORPHAN, sent], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
