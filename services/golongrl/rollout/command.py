"""`golongrl rollout`: the worker beside one engine."""

import os
import socket
import tempfile
from pathlib import Path
from typing import Annotated

import typer


def rollout(
    recipe: Annotated[
        str, typer.Option(envvar="GOLONGRL_RECIPE", help="The run's recipe: its file, or a packaged name.")
    ],
    run: Annotated[str, typer.Option(envvar="GOLONGRL_RUN", help="Name of the run.")],
    redis_url: Annotated[str, typer.Option(envvar="GOLONGRL_REDIS_URL", help="Redis or Valkey of the run.")],
    engine_url: Annotated[str, typer.Option(envvar="GOLONGRL_ENGINE_URL", help="The engine beside this worker.")],
    reward_url: Annotated[str, typer.Option(envvar="GOLONGRL_REWARD_URL", help="The reward service.")],
    data: Annotated[
        Path,
        typer.Option(envvar="GOLONGRL_DATA", help="Folder that `golongrl data prepare` wrote (train/, validation/)."),
    ],
    worker: Annotated[
        str,
        typer.Option(
            envvar="GOLONGRL_WORKER", help="Id of this worker, its own in the run.", show_default="the host's name"
        ),
    ] = socket.gethostname(),
    weights_copy: Annotated[
        Path | None,
        typer.Option(
            envvar="GOLONGRL_WEIGHTS_COPY",
            help="Folder for a local copy of the weights, which the engine must see under the same path; twice the "
            "model's size.",
            show_default="a folder of this worker's under the temporary folder",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address of /healthz, /readyz and /metrics.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of these; 0 is a free one.")] = 8081,
    grace: Annotated[
        float, typer.Option(help="Seconds that groups may still take to end after SIGTERM or Ctrl-C.")
    ] = 20.0,
) -> None:
    """Generate with one engine: adopt weights, lease prompts, sample, score, submit.

    Keys come from the environment alone: GOLONGRL_ENGINE_API_KEY, GOLONGRL_ENGINE_ADMIN_API_KEY, GOLONGRL_REWARD_TOKEN.
    """
    from golongrl.bounded_http import refuse_no_address
    from golongrl.rollout.app import serve
    from golongrl.rollout.config import WorkerConfig

    refuse_no_address(engine_url, "--engine-url")
    refuse_no_address(reward_url, "--reward-url")
    config = WorkerConfig(
        run=run,
        worker=worker,
        redis_url=redis_url,
        engine_url=engine_url,
        reward_url=reward_url,
        data=data,
        weights_copy=weights_copy or Path(tempfile.gettempdir(), f"golongrl-{os.getuid()}", "weights", run, worker),
        host=host,
        port=port,
        grace_s=grace,
    )
    serve(config, recipe)
