"""`golongrl learner`: the driver of the training ranks."""

from pathlib import Path
from typing import Annotated

import typer


def learner(
    recipe: Annotated[str, typer.Option(envvar="GOLONGRL_RECIPE", help="Resolved recipe file, or a packaged name.")],
    run: Annotated[str, typer.Option(envvar="GOLONGRL_RUN", help="Name of the run.")],
    redis_url: Annotated[str, typer.Option(envvar="GOLONGRL_REDIS_URL", help="Redis or Valkey of the run.")],
    data: Annotated[Path, typer.Option(envvar="GOLONGRL_DATA", help="Prepared data (train/, validation/).")],
    weights: Annotated[Path, typer.Option(envvar="GOLONGRL_WEIGHTS", help="Weight store folder.")],
    out: Annotated[Path, typer.Option(envvar="GOLONGRL_OUT", help="Folder for metrics, checkpoints and the result.")],
    host: Annotated[str, typer.Option(help="Address of /healthz and /metrics.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of these; 0 is off.")] = 0,
) -> None:
    """Train: take batches from the queue, update the policy, publish its weights.

    Joins the Ray cluster of RAY_ADDRESS, or starts a local Ray. SIGTERM and Ctrl-C end it after the step in hand with a
    checkpoint (exit 143); the next start with the same folder resumes.
    """
    import asyncio

    from golongrl.learner.startup import LearnerConfig, train
    from golongrl.recipe import load
    from golongrl.telemetry.logging import configure
    from golongrl.telemetry.tracing import endpoint_of

    checked = load(recipe)
    configure("learner", run, traced=bool(endpoint_of(checked.telemetry.otlp_endpoint)))
    config = LearnerConfig(run=run, redis_url=redis_url, data=data, weights=weights, out=out, host=host, port=port)
    asyncio.run(train(checked, config))
