"""Who answers the prompts of a round: engines that are started on this machine, or workers elsewhere on one Redis.

Workers elsewhere learn from a board (`board`) which round there is; on Kubernetes their Job is started when it is due,
and watched.
"""

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import structlog

from golongrl import files
from golongrl.data.construct.generate_models import PassratePool
from golongrl.data.construct.keys import digest
from golongrl.data.construct.passrate import board
from golongrl.data.construct.passrate.board import Board
from golongrl.data.construct.passrate.driver import DriverConfig, drive
from golongrl.data.construct.passrate.jobs import PoolJob
from golongrl.data.construct.passrate.rollouts import REWARDS, RunPool
from golongrl.local.pool import options_of, run_pool
from golongrl.queue import SampleQueue
from golongrl.recipe import Recipe, dump
from golongrl.redis_url import split_password

log = structlog.get_logger(__name__)

# A run's name; the queue is the pool's own.
RUN = "pass-rate"
# Between two signs of life on the board, and two looks at the Job of the pool.
_BEAT_S = 20.0


def pool_of(settings: PassratePool, jobs: Mapping[str, str] | None = None) -> RunPool:
    """The pool that the pipeline names. `jobs` are suspended Jobs of Kubernetes, by the model that they serve."""
    return LocalPool(settings) if settings.redis_url is None else SharedPool(settings.redis_url, jobs or {})


class LocalPool:
    """Engines of this machine, with a driver in a process of its own."""

    def __init__(self, settings: PassratePool) -> None:
        self._settings = settings

    def __call__(self, recipe: Recipe, place: Path, model: Path) -> None:
        settings = self._settings
        options = options_of(
            RUN, place, model, engines=settings.engines, engine=settings.engine, sglang_venv=Path(settings.sglang_venv)
        )
        folder = options.folder
        driver = (
            sys.executable, "-m", "golongrl", "data", "rollouts", "--recipe", str(folder.recipe), "--run", RUN,
            "--redis-url", options.queue_url, "--data", str(folder.data), "--model", str(model),
            "--out", str(folder.path / REWARDS),
        )  # fmt: skip
        run_pool(recipe, options, driver, lambda line: log.warning("the pool of engines", detail=line))


class SharedPool:
    """Workers that somebody else starts; the driver runs in this process."""

    def __init__(self, redis_url: str, jobs: Mapping[str, str]) -> None:
        self._redis_url = redis_url
        self._jobs = jobs

    def __call__(self, recipe: Recipe, place: Path, model: Path) -> None:
        place = place.absolute()
        run = run_name(place)
        files.write_text(place / board.RECIPE, dump(recipe))
        shown, _ = split_password(self._redis_url)
        path = board.path_of(place)
        print(
            f"waiting for workers: golongrl data worker --board {path} --redis-url {shown} --engine-url ENGINE "
            f"--reward-url REWARD; engines load {model}"
        )
        config = DriverConfig(run, self._redis_url, place / board.DATA, model, place / REWARDS)
        job = self._jobs.get(board.name_of(place))
        asyncio.run(self._run(recipe, config, path, board.opened(recipe, run, place, model), job))

    def ended(self, folder: Path, name: str) -> None:
        """Tell the workers of a model that it has no more rounds, so that they end."""
        board.write(folder / f"{name}.json", Board(ended=True))

    async def _run(self, recipe: Recipe, config: DriverConfig, path: Path, said: Board, job: str | None) -> None:
        # First of all, because the pods of the Job read it.
        board.write(path, said)
        pods = PoolJob(job) if job else None
        if pods is not None:
            await pods.start()
        signs = asyncio.create_task(_signs(path, said, pods))
        driving = asyncio.create_task(drive(recipe, config))
        try:
            first, _ = await asyncio.wait({signs, driving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (signs, driving):
                task.cancel()
            await asyncio.gather(signs, driving, return_exceptions=True)
            # The engines stay: the next round may be the same model's.
            board.write(path, replace(said, place="", run=""))
        for task in first:
            task.result()
        async with SampleQueue.from_url(config.redis_url, config.run) as queue:
            await queue.forget()


async def _signs(path: Path, said: Board, job: PoolJob | None) -> None:
    """Show the workers that the driver lives; returns never.

    Raises:
        PipelineError: the pool's Job has ended.
    """
    while True:
        await asyncio.sleep(_BEAT_S)
        said = replace(said, beat=said.beat + 1)
        await asyncio.to_thread(board.write, path, said)
        if job is not None:
            await job.check()


def run_name(place: Path) -> str:
    """The run of a round on a shared Redis: no other folder has it."""
    return f"{RUN}-{digest(str(place.absolute()))[:10]}"
