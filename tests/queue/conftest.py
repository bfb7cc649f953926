"""Queues on a real server, small and with a clock that tests move."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import numpy as np
import pytest

from golongrl.queue import Batch, Group, Lease, SampleQueue, Wait, WeightsRef
from support.groups import group_for, queue_settings
from support.redis_server import NO_REDIS, redis_binary, running

SETTINGS = queue_settings(groups_per_step=2, max_staleness=1, lease_s=60, stall_s=300, manual_clock=True)


class Play:
    """Drives one queue in the short words of the protocol's traces: L(ease), S(ubmit), T(ake), F(inish)."""

    def __init__(self, queue: SampleQueue) -> None:
        self.queue = queue
        self.fence = ""

    async def start(
        self, rows: int = 20, epochs: int = 1, tasks: list[str] | None = None, checkpoint: int = 0, **changes: object
    ) -> "Play":
        order = [np.arange(rows, dtype=np.int32)] * epochs
        settings = replace(SETTINGS, **changes)  # type: ignore[arg-type]
        await self.queue.setup(settings, order, tasks or ["a"] * rows)
        self.fence = (await self.queue.attach(checkpoint)).token
        return self

    async def lease(self, version: int = 0, worker: str = "w", **more: str) -> Lease:
        answer = await self.queue.lease(worker, version, **more)  # type: ignore[arg-type]
        assert isinstance(answer, Lease), answer
        return answer

    async def leases(self, n: int, version: int = 0) -> list[Lease]:
        return [await self.lease(version) for _ in range(n)]

    async def refused(self, version: int = 0, **more: str) -> str:
        answer = await self.queue.lease("w", version, **more)  # type: ignore[arg-type]
        assert not isinstance(answer, Lease), answer
        return answer.reason

    async def submit(self, lease: Lease, version: int | None = None, **more: object) -> str:
        group: Group = group_for(lease, version, **more)  # type: ignore[arg-type]
        return await self.queue.submit(lease, group)

    async def batch(self, step: int) -> list[str]:
        answer = await self.queue.take(self.fence, step)
        assert isinstance(answer, Batch), answer
        return [group.uid for group in answer.groups]

    async def waits(self, step: int) -> Wait:
        answer = await self.queue.take(self.fence, step)
        assert isinstance(answer, Wait), answer
        return answer

    async def finish(self, step: int) -> None:
        await self.queue.finish(self.fence, step)

    async def commit(self, step: int) -> None:
        await self.queue.commit(self.fence, step)

    async def announce(self, version: int, lineage: str = "one") -> WeightsRef:
        return await self.queue.announce(self.fence, WeightsRef(version, f"/w/v{version}", lineage, "sum"))


@pytest.fixture(scope="session", params=["valkey", "redis"])
def redis_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The rules hold on both servers."""
    binary = redis_binary() if request.param == "redis" else None
    if request.param == "redis" and binary is None:
        pytest.skip(NO_REDIS)
    with running(tmp_path_factory.mktemp(request.param), binary) as url:
        yield url


@pytest.fixture
async def queue(redis_url: str, run_name: str) -> AsyncIterator[SampleQueue]:
    async with SampleQueue.from_url(redis_url, run_name) as client:
        yield client


@pytest.fixture
def play(queue: SampleQueue) -> Play:
    return Play(queue)
