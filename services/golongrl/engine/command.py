"""`golongrl engine`: serve a model folder on the CPU behind SGLang's HTTP API."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from golongrl.engine.config import EngineConfig, check_context, check_model_folder, check_version
from golongrl.header_keys import header_key


def engine(
    model_path: Annotated[Path, typer.Option(help="Hugging Face model folder with weights and tokenizer.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = EngineConfig.host,
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = EngineConfig.port,
    weight_version: Annotated[str, typer.Option(help="Version to report for these weights.")] = (
        EngineConfig.weight_version
    ),
    seed: Annotated[int, typer.Option(help="Seed of requests without a sampling_seed.", min=0)] = EngineConfig.seed,
    max_batch: Annotated[int, typer.Option(help="Requests that run at a time, as one batch.", min=1)] = (
        EngineConfig.max_batch
    ),
    max_queue: Annotated[int, typer.Option(help="Requests that may wait; more are answered 503.", min=1)] = (
        EngineConfig.max_queue
    ),
    context_length: Annotated[
        int | None, typer.Option(help="Longest prompt plus response in tokens; default: the model's own.", min=8)
    ] = EngineConfig.context_length,
    threads: Annotated[
        int, typer.Option(help="Threads of the model; more than one is slower on shared cores.", min=1)
    ] = EngineConfig.threads,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="GOLONGRL_ENGINE_API_KEY",
            help="Key that requests must bring; the control endpoints too, without an admin key.",
        ),
    ] = None,
    admin_api_key: Annotated[
        str | None,
        typer.Option(
            envvar="GOLONGRL_ENGINE_ADMIN_API_KEY", help="Key of the control endpoints (weights, pause, abort) alone."
        ),
    ] = None,
) -> None:
    """Serve a model on the CPU with SGLang's HTTP API."""
    check_version(weight_version)
    check_model_folder(model_path)
    check_context(context_length, model_path)
    # Before torch is imported: its thread pools are sized then.
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    config = EngineConfig(
        model_path=model_path,
        host=host,
        port=port,
        weight_version=weight_version,
        seed=seed,
        max_batch=max_batch,
        max_queue=max_queue,
        context_length=context_length,
        threads=threads,
        api_key=header_key(api_key, "--api-key"),
        admin_api_key=header_key(admin_api_key, "--admin-api-key"),
    )
    from golongrl.engine.server import serve

    code = serve(config)
    # All is closed. Taking torch down piece by piece is a second of work, which on a busy machine keeps a run from its
    # end for half a minute.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
