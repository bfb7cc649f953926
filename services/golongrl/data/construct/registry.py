"""Which stages a pipeline has, in their order."""

from collections.abc import Mapping

from golongrl.data.construct.contamination.stage import DecontaminateStage
from golongrl.data.construct.conversion.stage import ConvertStage
from golongrl.data.construct.diagnosis.stage import DiagnoseStage
from golongrl.data.construct.formatting.stage import FormatStage
from golongrl.data.construct.generate.stage import GenerateStage
from golongrl.data.construct.metrics import DataMetrics
from golongrl.data.construct.models import Pipeline
from golongrl.data.construct.select.feedback import failures
from golongrl.data.construct.select.quotas import quotas
from golongrl.data.construct.select.stage import SelectStage
from golongrl.data.construct.sources.stage import SourcesStage
from golongrl.data.construct.stage import Executor, PipelineStage
from golongrl.data.construct.tables import ORDER, Tables
from golongrl.data.construct.verify.stage import VerifyStage


def stages(
    pipeline: Pipeline,
    tables: Tables,
    executor: Executor,
    metrics: DataMetrics,
    pool_jobs: Mapping[str, str] | None = None,
) -> list[PipelineStage]:
    """The stages whose sections the pipeline has. `pool_jobs`: see `passrate.pools.pool_of`."""
    shares = quotas(pipeline.select, failures(pipeline.select.feedback, pipeline.select.bins))
    wanted = {" ".join(cell): count for cell, count in shares.items()}
    made: list[PipelineStage] = [
        SourcesStage(pipeline, tables, executor),
        SelectStage(pipeline, tables),
        GenerateStage(pipeline, tables, executor, metrics),
        ConvertStage(pipeline, executor),
        FormatStage(pipeline, tables, executor),
        DecontaminateStage(pipeline, tables, executor, wanted),
        DiagnoseStage(pipeline, tables, executor),
    ]
    if pipeline.verify is not None:
        made.append(VerifyStage(pipeline, tables, executor, pipeline.verify, metrics))
    if pipeline.passrate is not None:
        # It starts engines and needs what `golongrl[local]` brings; other pipelines do without.
        from golongrl.data.construct.passrate.stage import PassrateStage

        made.append(PassrateStage(pipeline, tables, pipeline.passrate, jobs=pool_jobs))
    return sorted((stage for stage in made if tables.has(stage.name)), key=lambda stage: ORDER.index(stage.name))
