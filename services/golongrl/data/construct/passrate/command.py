"""`golongrl data rollouts`: the driver of a pool, in the place of a learner."""

from pathlib import Path
from typing import Annotated

import typer


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
