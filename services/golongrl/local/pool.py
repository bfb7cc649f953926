"""A pool that only rolls out, on this machine: queue, reward service, engines with their workers, and a driver that
takes the finished groups in the learner's place.

The workers are those of a training run, unchanged. Started again on the same folder after a kill, the pool continues:
the queue's data are on disk.
"""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx

from golongrl import files
from golongrl.local import preflight, redis_server, survivors
from golongrl.local.plan import EngineKind, Options, RunFolder
from golongrl.local.services import DRIVER, stages
from golongrl.local.supervisor import RunFailedError, RunInterruptedError, Supervisor
from golongrl.recipe import Recipe, dump

# Of a liveness probe, as for a training run.
_HTTP_TIMEOUT_S = 5.0


def options_of(
    run: str, folder: Path, model: Path, *, engines: int = 1, engine: EngineKind = "embedded", sglang_venv: Path
) -> Options:
    """What a pool in `folder` needs: free ports and the password of its Redis, which the folder keeps.

    Raises:
        OSError: the folder cannot be written.
        InputError: SGLang is asked for and not installed.
    """
    place = RunFolder(folder.absolute())
    for needed in (place.logs, place.redis):
        needed.mkdir(parents=True, exist_ok=True)
    options = Options(
        run=run,
        folder=place,
        ports=preflight.free_ports(engines),
        model=model,
        engine=engine,
        sglang_venv=sglang_venv,
        password=redis_server.password_of(place.redis),
    )
    preflight.check(options)
    return options


def run_pool(recipe: Recipe, options: Options, driver: tuple[str, ...], say: Callable[[str], None]) -> None:
    """Run the pool until its driver has ended well.

    Args:
        driver: the command line of the driver.
        say: receives a line for each event.

    Raises:
        RunFailedError: a service could not be kept alive.
        RunInterruptedError: a signal came.
    """
    folder = options.folder
    if left := survivors.end(survivors.of_run(folder.path)):
        raise RunFailedError(f"processes of an earlier start still run: {survivors.names(left)}; end them first")
    files.write_text(folder.recipe, dump(recipe))
    try:
        asyncio.run(_run(recipe, options, driver, say))
    except RunInterruptedError as error:
        raise RunInterruptedError(error.number, "start the same command again to continue") from None
    shutil.rmtree(folder.redis, ignore_errors=True)


async def _run(recipe: Recipe, options: Options, driver: tuple[str, ...], say: Callable[[str], None]) -> None:
    assert options.password is not None
    command = redis_server.command(options.ports.redis, options.folder.redis, options.password)
    async with (
        # Without connections that stay open: a server would wait for them at its end.
        httpx.AsyncClient(timeout=_HTTP_TIMEOUT_S, headers={"Connection": "close"}, trust_env=False) as http,
        redis_server.probe_client(options.ports.redis, options.password) as server,
    ):
        started = stages(recipe, options, command, http, server, driver)
        await Supervisor(started, DRIVER, options.folder.logs, say).run()
