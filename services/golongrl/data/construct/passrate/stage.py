"""The stage: samples in, their bands out."""

import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import structlog

from golongrl import files
from golongrl.data.construct import schemas
from golongrl.data.construct.bands import ROLLOUTS
from golongrl.data.construct.dataset_row import dataset_row
from golongrl.data.construct.generate_models import Passrate, PassrateModel, PassratePool
from golongrl.data.construct.keys import digest
from golongrl.data.construct.models import Pipeline
from golongrl.data.construct.passrate.driver import DriverConfig, drive
from golongrl.data.construct.passrate.rollouts import REWARDS, Rollouts, RunPool
from golongrl.data.construct.passrate.tally import Decision, Tally, decide, needs_large
from golongrl.data.construct.stage import (
    Done,
    Forecast,
    Input,
    Made,
    PipelineStage,
    Row,
    StageName,
    StageShard,
    refused,
)
from golongrl.data.construct.tables import Tables
from golongrl.local.pool import options_of, run_pool
from golongrl.queue import SampleQueue
from golongrl.recipe import Recipe, dump
from golongrl.redis_url import split_password

log = structlog.get_logger(__name__)

# A run's name; the queue is the pool's own.
RUN = "pass-rate"


class PassrateStage(PipelineStage):
    """How often models answer right. The rollouts are kept in `passrate/rollouts`, a folder for each model."""

    name: ClassVar[StageName] = "passrate"
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = schemas.PASSRATE

    def __init__(self, pipeline: Pipeline, tables: Tables, settings: Passrate, pool: RunPool | None = None) -> None:
        self._pipeline = pipeline
        self._tables = tables
        self._settings = settings
        self._run_pool = pool or pool_of(settings.pool)

    def settings(self) -> Mapping[str, object]:
        settings = self._settings.model_dump(mode="json", include={"thresholds", "repeats", "keep"})
        models = {"small": self._settings.small, "large": self._settings.large}
        asked = {name: asked_of(model) for name, model in models.items() if model is not None}
        return {**settings, **asked, "seed": self._pipeline.seed, "instructions": self._pipeline.format.instructions}

    def inputs(self) -> Iterator[Input]:
        for sample in self._tables.samples(["task"], before="passrate"):
            row = {key: sample[key] for key in ("id", "table", "task")}
            yield Input(digest(row), row)

    def run(self, shards: Sequence[StageShard], done: Done) -> None:
        inputs = {one.row["id"]: one.row for shard in shards for one in shard.inputs}
        if not inputs:
            return
        thresholds = {sample: self._settings.thresholds[row["task"]] for sample, row in inputs.items()}
        rollouts = self._rollouts("small", self._settings.small, inputs)
        small = rollouts.tallies(list(inputs))
        too_long = rollouts.left_out()
        large: dict[str, Tally] = {}
        if self._settings.large is not None and (hard := needs_large(small, thresholds)):
            rollouts = self._rollouts("large", self._settings.large, inputs)
            large = rollouts.tallies(hard)
            too_long |= rollouts.left_out()
        for shard in shards:
            made: list[Made] = []
            for one in shard.inputs:
                sample = one.row["id"]
                decision = decide(
                    small[sample],
                    large.get(sample),
                    thresholds[sample],
                    self._settings.keep,
                    dealt=sample not in too_long,
                )
                made.append([self._row(sample, decision, thresholds[sample])])
            done(shard, made)

    def forecast(self, inputs: int, todo: Sequence[Input] | None) -> Forecast:
        count = inputs if todo is None else len(todo)
        large = self._settings.large
        more = f", and up to as many of {large.path}" if large is not None else ""
        return Forecast([f"{count} x {ROLLOUTS} rollouts of {self._settings.small.path}{more}"])

    def _rollouts(self, name: str, model: PassrateModel, inputs: Mapping[str, Row]) -> Rollouts:
        def row_of(sample: str) -> dict[str, Any]:
            found = self._tables.sample(inputs[sample]["table"], sample)
            return dataset_row(self._tables.out, found, self._pipeline.format.instructions)

        terms = digest(asked_of(model), self._pipeline.seed, self._pipeline.format.instructions)
        folder = self._tables.table("passrate").folder / "rollouts" / f"{name}-{terms[:8]}"
        log.info("rollouts", model=model.path, samples=len(inputs), folder=str(folder))
        return Rollouts(
            folder, model, self._settings.batch, self._pipeline.seed, self._settings.repeats, self._run_pool, row_of
        )

    def _row(self, sample: str, decision: Decision, threshold: float) -> dict[str, Any]:
        tally = decision.tally
        model = self._settings.large if decision.by_large else self._settings.small
        assert model is not None  # else it would not have decided
        columns = {
            "sample_id": sample,
            "band": decision.band,
            "mean_reward": tally.mean,
            "passed": tally.passes(threshold),
            "rollouts": len(tally.rewards),
            "model": model.path,
        }
        return columns if decision.reason is None else refused(decision.reason, decision.detail, **columns)


def asked_of(model: PassrateModel) -> dict[str, object]:
    """What of a model the rewards depend on."""
    return model.model_dump(mode="json", exclude={"concurrent_groups"})


def pool_of(settings: PassratePool) -> RunPool:
    """The pool that the pipeline names."""
    return LocalPool(settings) if settings.redis_url is None else SharedPool(settings.redis_url)


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

    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url

    def __call__(self, recipe: Recipe, place: Path, model: Path) -> None:
        place = place.absolute()
        run = run_name(place)
        files.write_text(place / "recipe.yaml", dump(recipe))
        shown, _ = split_password(self._redis_url)
        print(
            f"waiting for workers: golongrl rollout --recipe {place / 'recipe.yaml'} --run {run} --redis-url {shown} "
            f"--data {place / 'data'} --engine-url ENGINE --reward-url REWARD; engines load {model}"
        )
        asyncio.run(self._drive(recipe, DriverConfig(run, self._redis_url, place / "data", model, place / REWARDS)))

    async def _drive(self, recipe: Recipe, config: DriverConfig) -> None:
        await drive(recipe, config)
        async with SampleQueue.from_url(config.redis_url, config.run) as queue:
            await queue.forget()


def run_name(place: Path) -> str:
    """The run of a round on a shared Redis: no other folder has it."""
    return f"{RUN}-{digest(str(place.absolute()))[:10]}"
