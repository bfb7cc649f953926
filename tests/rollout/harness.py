"""A worker with everything it talks to, all real: Valkey, the embedded engine over a socket, the reward service."""

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI

from golongrl.data.prepared import Prepared, PreparedRow, write_prepared
from golongrl.engine.app import create_app as create_engine
from golongrl.engine.config import EngineConfig
from golongrl.learner.queue_settings import queue_settings
from golongrl.queue import Batch, Group, SampleQueue, WeightsRef
from golongrl.recipe import Recipe, load
from golongrl.reward.client import RewardClient
from golongrl.rollout.config import WorkerConfig
from golongrl.rollout.groups.bench import Bench
from golongrl.rollout.observe.metrics import RolloutMetrics
from golongrl.rollout.observe.state import State
from golongrl.rollout.sglang.client import EngineClient
from golongrl.rollout.sglang.http import Deadlines
from golongrl.rollout.weights.adopt import Confirmed, adopt
from golongrl.rollout.weights.policy import Mode
from golongrl.rollout.worker import RolloutWorker

ROWS = 64


def recipe(*overrides: str) -> Recipe:
    """The quickstart recipe, cut to tests: two groups a batch, four responses, short."""
    return load(
        "quickstart",
        [
            "model.context_length=1024",
            "data.context_tokens=60",
            "data.max_prompt_tokens=64",
            "rollout.n=4",
            "rollout.max_response_tokens=24",
            "rollout.concurrent_groups=2",
            "queue.groups_per_step=2",
            *overrides,
        ],
    )


def write_rows(folder: Path, rows: int = ROWS, **changes: Any) -> Path:
    """A prepared dataset of random prompts over the tiny model's vocabulary."""
    draw = np.random.default_rng(0)
    write_prepared(
        (
            PreparedRow(
                **{
                    "index": index,
                    "prompt_ids": draw.integers(3, 500, 12, dtype=np.int32),
                    "task": "T1",
                    "metric": "EM",
                    "task_key": "EM",
                    "data_source": "EM",
                    "reward_mode": "EM",
                    "ground_truth": {"golden_label": "x"},
                    "extra_info": {"reward_mode": "EM"},
                    "ability": "",
                    **changes,
                }
            )
            for index in range(rows)
        ),
        folder,
    )
    return folder


def publish(store: Path, version: int, model: Path) -> WeightsRef:
    """Put `model` into the weight store as `version`."""
    folder = store / f"v{version}"
    shutil.copytree(model, folder)
    return WeightsRef(version, str(folder), lineage="first", checksum="")


async def adopted(
    engine: EngineClient,
    ref: WeightsRef,
    mode: Mode = Mode.DRAIN,
    held: Confirmed | None = None,
    worker: str = "w0",
    folder: Path | None = None,
) -> Confirmed:
    """Bring the engine to `ref`, as a worker does; what was confirmed, once."""
    confirmed: list[Confirmed] = []
    await adopt(engine, ref, mode, held, confirmed.append, worker=worker, folder=folder)
    assert [one.ref for one in confirmed] == [ref]
    return confirmed[0]


@dataclass
class Learner:
    """What the learner does at the queue, without training."""

    queue: SampleQueue
    fence: str
    step: int = 0

    async def take(self) -> Batch:
        """The next batch; waits for it."""
        while not isinstance(batch := await self.queue.take(self.fence, self.step + 1), Batch):
            await asyncio.sleep(0.02)
        return batch

    async def finish(self, weights: WeightsRef) -> None:
        """Announce the weights of the step, and end it."""
        await self.queue.announce(self.fence, weights)
        await self.queue.finish(self.fence, self.step + 1)
        self.step += 1


def versions(group: Group) -> set[int]:
    """The versions of a group's tokens."""
    return {span.version for response in group.responses for span in response.version_spans}


async def set_up(
    queue: SampleQueue, made: Recipe, rows: int = ROWS, *, manual_clock: bool = False, dealt: Prepared | None = None
) -> Learner:
    """Create the run and attach to it; with `manual_clock` its leases run out by `queue.advance` alone."""
    settings = replace(queue_settings(made, data=dealt), manual_clock=manual_clock)
    await queue.setup(settings, [np.arange(rows, dtype=np.int32)], ["EM"] * rows)
    return Learner(queue, (await queue.attach(0)).token)


async def lose(queue: SampleQueue) -> None:
    """Delete all that the server has of the queue's run."""
    connection = queue._connection
    everything = connection.key("*").replace("{", "?").replace("}", "?")
    await connection.client.delete(*await connection.client.keys(everything))


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[str]:
    """An app on a socket of this process; its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1))
    serving = asyncio.create_task(server._serve([listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    await serving


def embedded_engine(model: Path) -> AbstractAsyncContextManager[str]:
    """The embedded engine on a socket of this process; its URL."""
    return served(create_engine(EngineConfig(model_path=model, context_length=1024)))


@dataclass
class Rig:
    """A worker on its bench, not started yet."""

    worker: RolloutWorker
    bench: Bench
    learner: Learner
    engine: httpx.AsyncClient
    """Somebody else who talks to the engine."""
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def state(self) -> State:
        return self.bench.state

    def start(self) -> asyncio.Task[None]:
        """Let the worker run."""
        self.tasks.append(asyncio.create_task(self.worker.run()))
        return self.tasks[-1]

    async def take(self, seconds: float = 240.0) -> Batch:
        """The next batch; a worker that ends meanwhile fails the test with its error."""
        taking = asyncio.create_task(self.learner.take())
        try:
            await self.until(taking.done, seconds)
            return taking.result()
        finally:
            taking.cancel()

    async def until(self, condition: Callable[[], object], seconds: float = 240.0) -> None:
        """Wait for a condition while the worker runs; a worker that ended fails the test with its error."""
        async with asyncio.timeout(seconds):
            while not condition():
                for task in self.tasks:
                    if task.done():
                        task.result()
                        raise AssertionError("the worker ended")
                await asyncio.sleep(0.01)


Start = Callable[..., AbstractAsyncContextManager[Rig]]


@asynccontextmanager
async def rig(
    made: Recipe,
    redis_url: str,
    run: str,
    data: Path,
    engine_url: str,
    reward: httpx.AsyncBaseTransport,
    *,
    created: bool = True,
    manual_clock: bool = False,
    validation: Path | None = None,
    dealt: Prepared | None = None,
    **config: Any,
) -> AsyncIterator[Rig]:
    """A worker and its clients, on a run that is set up (`created`); stopped at the end."""
    settings = WorkerConfig(
        **{
            "run": run,
            "worker": "w0",
            "redis_url": redis_url,
            "engine_url": engine_url,
            "reward_url": "http://reward",
            "data": data,
            "weights_copy": data / "copy",
            "grace_s": 10.0,
            "engine_check_s": 0.2,
            **config,
        }
    )
    async with AsyncExitStack() as stack:
        learner_queue = await stack.enter_async_context(SampleQueue.from_url(redis_url, run))
        queue = await stack.enter_async_context(SampleQueue.from_url(redis_url, run))
        engine = await stack.enter_async_context(EngineClient(engine_url, deadlines=Deadlines(silence_s=120.0)))
        client = await stack.enter_async_context(RewardClient("http://reward", transport=reward, attempts=2))
        other = await stack.enter_async_context(httpx.AsyncClient(base_url=engine_url, trust_env=False, timeout=60))
        held_out = None if validation is None else Prepared.open(validation)
        bench = Bench(
            made, settings.worker, queue, engine, client, Prepared.open(data), RolloutMetrics(), State(), held_out
        )
        learner = Learner(learner_queue, fence="")
        if created:
            learner = await set_up(learner_queue, made, manual_clock=manual_clock, dealt=dealt)
        built = Rig(RolloutWorker(settings, bench), bench, learner, other)
        try:
            yield built
        finally:
            built.worker.stop()
            for task in built.tasks:
                await task
