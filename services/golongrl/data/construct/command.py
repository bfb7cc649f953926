"""`golongrl data construct`, `golongrl data diff` and `golongrl render datajob`."""

import functools
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from golongrl.errors import writing_to
from golongrl.kubernetes.names import SUBDOMAIN
from golongrl.telemetry.scrape_options import MetricsHost, MetricsPort

if TYPE_CHECKING:
    from golongrl.data.construct.models import Pipeline

# What a shell reports of a process that SIGINT ended.
_INTERRUPTED = 130

Overrides = Annotated[list[str] | None, typer.Option("--set", help="Override, as `section.key=value`; repeatable.")]


def construct(
    pipeline: Annotated[str, typer.Argument(help="Packaged pipeline (laptop, paper) or YAML file.")],
    out: Annotated[
        Path, typer.Option(help="Folder of the stages' tables and train.parquet; a rerun makes what is missing.")
    ],
    overrides: Overrides = None,
    stage: Annotated[str | None, typer.Option(help="Run this stage alone; the ones before have to have ended.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done and what it would cost; write nothing.")
    ] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; without it one for each core.")] = None,
    on: Annotated[
        Literal["processes", "ray"],
        typer.Option(help="Where stages without a model are computed: here, or on a Ray cluster that mounts --out."),
    ] = "processes",
    pool_redis_url: Annotated[
        str | None,
        typer.Option(
            help="For passrate, if the pipeline names none: wait for workers on this Redis instead of starting engines."
        ),
    ] = None,
    pool_jobs: Annotated[
        list[str] | None,
        typer.Option(
            "--pool-job",
            help="With --pool-redis-url, in a pod: a suspended Job with the engines of a model, as `small=NAME` or "
            "`large=NAME`; it is started when the model is asked. Repeatable.",
        ),
    ] = None,
    wait_s: Annotated[
        float,
        typer.Option(
            "--wait-s",
            min=0,
            help="With --stage: wait so many seconds for the stages before it, and for another process that works in "
            "--out, instead of failing at once.",
        ),
    ] = 0.0,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
) -> None:
    """Make training data from documents: sources, questions, checks, decontamination, a report."""
    from golongrl.data.construct.errors import PipelineError
    from golongrl.data.construct.load import load
    from golongrl.data.construct.metrics import DataMetrics
    from golongrl.data.construct.run import construct as run
    from golongrl.data.construct.tables import ORDER
    from golongrl.data.construct.workers import Processes, RayCluster
    from golongrl.telemetry.scrape_port import scraped

    only = next((name for name in ORDER if name == stage), None)
    if stage is not None and only is None:
        raise PipelineError(f"--stage {stage}: no such stage; there are {', '.join(ORDER)}")
    if wait_s and only is None:
        raise PipelineError("--wait-s: needs --stage, because without it nothing comes before")
    jobs = _jobs(pool_jobs or ())
    executor = RayCluster() if on == "ray" else Processes(workers)
    chosen = _pooled(load(pipeline, overrides or ()), pool_redis_url)
    metrics = DataMetrics()
    say = functools.partial(print, flush=True)  # what a pipe keeps back is no progress
    try:
        with (
            scraped(metrics.registry, metrics_host, None if dry_run else metrics_port),
            writing_to(f"--out {out}", PipelineError),
        ):
            run(chosen, out, executor, say, only=only, dry_run=dry_run, wait_s=wait_s, metrics=metrics, pool_jobs=jobs)
    except KeyboardInterrupt:
        print("stopped; the same command resumes from here", file=sys.stderr)
        raise typer.Exit(_INTERRUPTED) from None


def _jobs(words: Sequence[str]) -> dict[str, str]:
    from golongrl.data.construct.errors import PipelineError

    found = dict(word.partition("=")[::2] for word in words)
    for word in words:
        if not re.fullmatch(rf"(small|large)={SUBDOMAIN}", word):
            raise PipelineError(f"--pool-job {word}: expected small=NAME or large=NAME, of a Job")
    return found


def _pooled(pipeline: "Pipeline", redis_url: str | None) -> "Pipeline":
    passrate = pipeline.passrate
    if redis_url is None or passrate is None or passrate.pool.redis_url is not None:
        return pipeline
    pool = passrate.pool.model_copy(update={"redis_url": redis_url})
    return pipeline.model_copy(update={"passrate": passrate.model_copy(update={"pool": pool})})


def datajob(
    pipeline: Annotated[str, typer.Argument(help="Packaged pipeline (laptop, paper) or YAML file.")],
    values: Annotated[
        list[Path] | None, typer.Option("--values", "-f", help="Values file of the chart; repeatable, later ones win.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override of the pipeline, as `section.key=value`; repeatable.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set-value", help="Value of the chart, as `construction.ray.enabled=true`; repeatable."),
    ] = None,
    stages: Annotated[
        list[str] | None,
        typer.Option("--stage", help="A Job for this stage; repeatable. Without it one Job runs all stages."),
    ] = None,
    release: Annotated[str, typer.Option("--release", help="Name of the helm release.")] = "golongrl",
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Namespace; empty leaves it to kubectl.")] = "",
) -> None:
    """Print the Jobs (or RayJobs) that construct data on a release's volume, with their account and network policy."""
    from golongrl.data.construct.datajob import datajob_yaml

    chosen = pipeline, overrides or (), stages or ()
    print(datajob_yaml(*chosen, release, namespace, values or (), settings or ()), end="")


def diff(
    a: Annotated[Path, typer.Argument(help="A data set (file or folder) or the folder of a construction.")],
    b: Annotated[Path, typer.Argument(help="Another one.")],
) -> None:
    """Say how two data sets differ: rows, tasks, lengths, and the settings of two constructions."""
    from rich.console import Console
    from rich.table import Table

    from golongrl.data.construct.diagnosis.diff import compare, read, settings

    table = Table(box=None)
    table.add_column("", no_wrap=True)
    for name in (a, b):
        table.add_column(str(name), overflow="fold")
    for line in compare(read(a), read(b)):
        table.add_row(*line)
    for line in settings(a, b):
        table.add_row(*line)
    Console().print(table)
