"""`golongrl reward`: serve the scoring API, print the task table, score a file.

Heavy imports stay inside the functions, so that `golongrl --help` is fast.
"""

import os
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer

from golongrl import files
from golongrl.errors import writing_to
from golongrl.header_keys import environment_key
from golongrl.recipe.fields import ScoringMode
from golongrl.reward.config import RewardConfig

app = typer.Typer(
    help="Score responses: a service, a table of the task types, a file.",
    epilog="Example: `golongrl reward serve --port 8080`",
    no_args_is_help=False,
    pretty_exceptions_enable=False,
)

Workers = Annotated[
    int, typer.Option(min=0, max=4096, help="Worker processes; 0 is one per CPU.", envvar="GOLONGRL_REWARD_WORKERS")
]
Deadline = Annotated[float, typer.Option(min=0.001, help="Seconds that one item may take; a request may set its own.")]


@app.callback(invoke_without_command=True)
def main(context: typer.Context) -> None:
    """Score responses. Without a sub-command: serve with the defaults."""
    if context.invoked_subcommand is None:
        # Through the command line, so that it reads the environment as `serve` does.
        typer.main.get_command(app).main(["serve"], prog_name="golongrl reward", standalone_mode=False)


@app.command(epilog="Example: `golongrl reward serve --host 127.0.0.1 --port 8080 --workers 4`")
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is all of them.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8080,
    workers: Workers = RewardConfig.workers,
    deadline: Deadline = RewardConfig.deadline_s,
    max_queued: Annotated[int, typer.Option(min=1, help="Items that may wait; more are answered 429.")] = (
        RewardConfig.max_queued
    ),
    max_batch: Annotated[int, typer.Option(min=1, help="Most items in a request.")] = RewardConfig.max_batch,
    max_item_bytes: Annotated[int, typer.Option(min=1, help="Largest item, in bytes.")] = RewardConfig.max_item_bytes,
    max_body_bytes: Annotated[int, typer.Option(min=1, help="Largest request, in bytes.")] = (
        RewardConfig.max_body_bytes
    ),
    shutdown_s: Annotated[
        int, typer.Option(min=1, help="After SIGTERM, seconds to finish accepted requests in.")
    ] = 300,
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], typer.Option(help="Log level.")] = "INFO",
) -> None:
    """Serve POST /v1/score, /healthz, /readyz and /metrics until SIGTERM; then finish what was accepted and exit 0.

    With a token in GOLONGRL_REWARD_TOKEN, /v1/score asks for it (Authorization: Bearer TOKEN).
    """
    from pydantic import SecretStr

    from golongrl.reward.app import create_app
    from golongrl.serving import bind, run
    from golongrl.telemetry.logging import configure
    from golongrl.telemetry.tracing import endpoint_of, tracing

    token = environment_key("GOLONGRL_REWARD_TOKEN")
    config = RewardConfig(
        workers=workers,
        deadline_s=deadline,
        max_queued=max_queued,
        max_batch=max_batch,
        max_item_bytes=max_item_bytes,
        max_body_bytes=max_body_bytes,
        token=SecretStr(token) if token else None,
    )
    configure("reward", run=os.environ.get("GOLONGRL_RUN"), level=log_level, traced=bool(endpoint_of(None)))
    with closing(tracing("reward", os.environ.get("GOLONGRL_RUN", ""))) as traced:
        run(create_app(config, tracing=traced), bind(host, port), grace_s=shutdown_s)


@app.command("tasks", epilog="Example: `golongrl reward tasks`")
def tasks_table() -> None:
    """Print the nine task types: metric, sub-tasks, answer format."""
    from rich.console import Console

    from golongrl.reward.report import task_table

    Console().print(task_table())


@app.command("score", epilog="Example: `golongrl reward score responses.jsonl --mode strict --out scores.jsonl`")
def score_file(
    file: Annotated[Path, typer.Argument(help="A jsonl of items, or of dataset rows with a `response` field.")],
    mode: Annotated[
        ScoringMode,
        typer.Option(help="compat: the original's rules. strict: the same metrics without their loopholes."),
    ] = "compat",
    workers: Workers = RewardConfig.workers,
    deadline: Deadline = RewardConfig.deadline_s,
    out: Annotated[Path | None, typer.Option(help="Write the results to this jsonl, one a line.")] = None,
) -> None:
    """Score a file: mean, distribution and unscored reasons per task type."""
    import asyncio

    from rich.console import Console

    from golongrl.reward.report import print_summary, read_items, score_items

    config = RewardConfig(
        workers=workers, deadline_s=deadline, max_deadline_s=max(deadline, RewardConfig.max_deadline_s)
    )
    if out is not None:
        files.refuse_input(out, [file])
    with nullcontext() if out is None else files.sole_writer(out):
        results = asyncio.run(score_items(read_items(file), mode, config))
        print_summary(Console(), results)
        if out is not None:
            with writing_to(f"--out {out}"):
                files.write_text(out, "".join(result.model_dump_json() + "\n" for result in results))
