"""The process: puts a worker, its clients and its HTTP endpoints together, and ends them in order on a signal."""

import asyncio
import signal
from contextlib import AsyncExitStack

import structlog

from golongrl.data.prepared import open_splits
from golongrl.header_keys import environment_key
from golongrl.queue import Patience, SampleQueue
from golongrl.recipe import Recipe, load
from golongrl.reward.client import RewardClient
from golongrl.rollout.config import WorkerConfig
from golongrl.rollout.groups.bench import Bench
from golongrl.rollout.observe.health import create_app
from golongrl.rollout.observe.metrics import RolloutMetrics
from golongrl.rollout.observe.state import State
from golongrl.rollout.sglang.client import EngineClient
from golongrl.rollout.sglang.http import Deadlines
from golongrl.rollout.worker import RolloutWorker
from golongrl.serving import bind, served
from golongrl.telemetry.logging import configure
from golongrl.telemetry.tracing import endpoint_of, tracing

# Short, because the worker itself continues to wait and reports it, and must notice a stop signal meanwhile.
_PATIENCE = Patience(total_s=5.0)

# Longest that one attempt at scoring a group may take; and, so that the worker can say that it waits for the reward
# service and try again before the queue calls the group stalled, the most of `queue.stall_s`.
_REWARD_S = 300.0
_REWARD_SHARE = 0.25

log = structlog.get_logger(__name__)


def serve(config: WorkerConfig, recipe_name: str) -> None:
    """Run a worker until SIGTERM or SIGINT; returns after an orderly stop.

    Raises:
        GolongrlError: with one line that says what is wrong.
    """
    recipe = load(recipe_name)
    configure("rollout", config.run, traced=bool(endpoint_of(recipe.telemetry.otlp_endpoint)))
    structlog.contextvars.bind_contextvars(worker=config.worker)
    asyncio.run(run(config, recipe))


async def run(config: WorkerConfig, recipe: Recipe) -> None:
    """The worker with everything it talks to."""
    listener = bind(config.host, config.port)
    data, validation = open_splits(config.data)
    state, metrics = State(), RolloutMetrics()
    metrics.watch(state.adoption)
    async with AsyncExitStack() as stack:
        queue = await stack.enter_async_context(
            SampleQueue.from_url(config.redis_url, config.run, patience=_PATIENCE, waits=state.waits)
        )
        engine = await stack.enter_async_context(
            EngineClient(
                config.engine_url,
                api_key=environment_key("GOLONGRL_ENGINE_API_KEY"),
                admin_api_key=environment_key("GOLONGRL_ENGINE_ADMIN_API_KEY"),
                # A silence that the queue would call a stall is one here too.
                deadlines=Deadlines(silence_s=recipe.queue.stall_s),
            )
        )
        reward = await stack.enter_async_context(
            RewardClient(
                config.reward_url,
                environment_key("GOLONGRL_REWARD_TOKEN"),
                timeout_s=min(_REWARD_S, _REWARD_SHARE * recipe.queue.stall_s),
            )
        )
        traced = tracing("rollout", config.run, recipes=recipe.telemetry.otlp_endpoint)
        stack.push_async_callback(asyncio.to_thread, traced.close)
        worker = RolloutWorker(
            config,
            Bench(
                recipe=recipe,
                worker=config.worker,
                queue=queue,
                engine=engine,
                reward=reward,
                data=data,
                metrics=metrics,
                state=state,
                validation=validation,
                tracing=traced,
            ),
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, worker.stop)
        async with served(create_app(state, recipe.queue.max_staleness, metrics.registry), listener):
            await worker.run()
    log.info("stopped")
