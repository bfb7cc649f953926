"""`golongrl data construct` and `golongrl data diff`."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from golongrl.errors import writing_to
from golongrl.telemetry.scrape_options import MetricsHost, MetricsPort

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
    executor = RayCluster() if on == "ray" else Processes(workers)
    metrics = DataMetrics()
    try:
        with (
            scraped(metrics.registry, metrics_host, None if dry_run else metrics_port),
            writing_to(f"--out {out}", PipelineError),
        ):
            run(load(pipeline, overrides or ()), out, executor, print, only=only, dry_run=dry_run, metrics=metrics)
    except KeyboardInterrupt:
        print("stopped; the same command resumes from here", file=sys.stderr)
        raise typer.Exit(_INTERRUPTED) from None


def diff(
    a: Annotated[Path, typer.Argument(help="A data set (file or folder) or the folder of a construction.")],
    b: Annotated[Path, typer.Argument(help="Another one.")],
) -> None:
    """Say how two data sets differ: rows, tasks, lengths, and the settings of two constructions."""
    from rich.console import Console
    from rich.table import Table

    from golongrl.data.construct.diagnosis.diff import compare, read, settings

    table = Table("", str(a), str(b), box=None)
    for line in compare(read(a), read(b)):
        table.add_row(*line)
    for line in settings(a, b):
        table.add_row(*line)
    Console().print(table)
