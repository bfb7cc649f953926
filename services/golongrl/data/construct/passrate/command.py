"""`golongrl data rollouts` and `golongrl data worker`: a pool's driver, in the learner's place, and its workers."""

from pathlib import Path
from typing import Annotated

import typer

# What a shell reports of a process that SIGTERM ended.
_TERMINATED = 143


def rollouts(
    recipe: Annotated[str, typer.Option(help="The pool's recipe, which its workers have, too.")],
    run: Annotated[str, typer.Option(help="Name of the run that the workers take prompts of.")],
    redis_url: Annotated[str, typer.Option(envvar="GOLONGRL_REDIS_URL", help="Redis or Valkey of the pool.")],
    data: Annotated[Path, typer.Option(help="Folder that `golongrl data prepare` wrote.")],
    model: Annotated[Path, typer.Option(help="Model folder that the engines load, under this path.")],
    out: Annotated[Path, typer.Option(help="Folder for the rewards, a JSON file for each batch of prompts.")],
) -> None:
    """Have a pool of rollout workers answer every prompt, keep the rewards, and end. Nothing is trained.

    `golongrl data construct` starts it with engines of this machine. With workers started elsewhere
    (`golongrl rollout` with the same recipe, run, Redis and data) it does the same on a cluster.
    """
    import asyncio

    from golongrl.data.construct.passrate.driver import DriverConfig, drive
    from golongrl.recipe import load
    from golongrl.telemetry.logging import configure

    configure("rollouts", run)
    asyncio.run(drive(load(recipe), DriverConfig(run, redis_url, data, model, out)))


def worker(
    board: Annotated[
        Path,
        typer.Option(
            help="Where a construction says which round it has: OUT/passrate/rollouts/small.json or large.json."
        ),
    ],
    redis_url: Annotated[str, typer.Option(envvar="GOLONGRL_REDIS_URL", help="Redis or Valkey of the construction.")],
    engine_url: Annotated[str, typer.Option(envvar="GOLONGRL_ENGINE_URL", help="The engine beside this worker.")],
    reward_url: Annotated[str, typer.Option(envvar="GOLONGRL_REWARD_URL", help="The reward service.")],
    host: Annotated[str, typer.Option(help="Address of /healthz, /readyz and /metrics.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of these; 0 is a free one.")] = 0,
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds that groups may still take to end after SIGTERM or Ctrl-C.")
    ] = 20.0,
    idle: Annotated[
        float, typer.Option(min=1, help="Seconds without a sign of the construction after which the worker ends.")
    ] = 3600.0,
    arguments: Annotated[
        list[str] | None, typer.Argument(help="More arguments of `golongrl rollout`, after --.")
    ] = None,
) -> None:
    """Answer the prompts of a construction's pass rate with one engine, round after round, until its model is done.

    Keys come from the environment alone, as for `golongrl rollout`.
    """
    import os

    from golongrl.data.construct.passrate.follow import Follower
    from golongrl.telemetry.logging import configure

    configure("worker", "pass-rate")
    # What a process list does not show, and other users cannot read.
    os.environ.update(GOLONGRL_REDIS_URL=redis_url, GOLONGRL_ENGINE_URL=engine_url, GOLONGRL_REWARD_URL=reward_url)
    follower = Follower(board, ("--host", host, "--port", str(port), *(arguments or ())), idle, grace)
    follower.on_signals()
    follower.follow()
    if follower.stop.is_set():
        # Not a success: a Job of Kubernetes would take it for the end of the work.
        raise typer.Exit(_TERMINATED)
