"""The stage: samples in, their bands out."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import structlog

from golongrl.data.construct import schemas
from golongrl.data.construct.bands import ROLLOUTS
from golongrl.data.construct.dataset_row import dataset_row
from golongrl.data.construct.generate_models import Passrate, PassrateModel
from golongrl.data.construct.keys import digest
from golongrl.data.construct.models import Pipeline
from golongrl.data.construct.passrate.pools import SharedPool, pool_of
from golongrl.data.construct.passrate.rollouts import Rollouts, RunPool
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

log = structlog.get_logger(__name__)


class PassrateStage(PipelineStage):
    """How often models answer right. The rollouts are kept in `passrate/rollouts`, a folder for each model."""

    name: ClassVar[StageName] = "passrate"
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = schemas.PASSRATE

    def __init__(
        self,
        pipeline: Pipeline,
        tables: Tables,
        settings: Passrate,
        pool: RunPool | None = None,
        jobs: Mapping[str, str] | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._tables = tables
        self._settings = settings
        self._run_pool = pool or pool_of(settings.pool, jobs)

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
        self._ended("small")
        too_long = rollouts.left_out()
        large: dict[str, Tally] = {}
        if self._settings.large is not None and (hard := needs_large(small, thresholds)):
            rollouts = self._rollouts("large", self._settings.large, inputs)
            large = rollouts.tallies(hard)
            too_long |= rollouts.left_out()
        self._ended("large")
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

    @property
    def _folder(self) -> Path:
        return self._tables.table("passrate").folder / "rollouts"

    def _ended(self, name: str) -> None:
        """The workers of a model are not needed any more."""
        if isinstance(self._run_pool, SharedPool):
            self._run_pool.ended(self._folder, name)

    def _rollouts(self, name: str, model: PassrateModel, inputs: Mapping[str, Row]) -> Rollouts:
        def row_of(sample: str) -> dict[str, Any]:
            found = self._tables.sample(inputs[sample]["table"], sample)
            return dataset_row(self._tables.out, found, self._pipeline.format.instructions)

        terms = digest(asked_of(model), self._pipeline.seed, self._pipeline.format.instructions)
        folder = self._folder / f"{name}-{terms[:8]}"
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
