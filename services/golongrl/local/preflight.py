"""Everything that can be wrong is found here, before any process is started; each problem is one line."""

import fcntl
import os
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import redis

from golongrl.errors import InputError, writing_to
from golongrl.local.plan import HOST, Options, Ports, RunFolder
from golongrl.ports import unused
from golongrl.recipe import Recipe, RecipeError, dump, load

# Sections an interrupted run may change when it goes on; any other would make the groups it holds mean something else.
RESUMABLE_SECTION = "learner"


def free_ports(engines: int) -> Ports:
    """Ports that are free now, all different."""
    numbers = unused(2 + 2 * engines)
    return Ports(numbers[0], numbers[1], tuple(numbers[2 : 2 + engines]), tuple(numbers[2 + engines :]))


def check_ports(ports: Ports) -> None:
    """Raises InputError naming the first port in use and the service that wanted it."""
    for name, port in ports.named().items():
        try:
            socket.create_server((HOST, port)).close()
        except (OSError, OverflowError) as error:
            raise InputError(f"port {port} for {name}: {error.args[-1]}; choose another --base-port") from error


def check_redis(url: str) -> None:
    """Raises InputError when an outside Redis does not answer."""
    try:
        with redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5) as client:
            client.ping()
    except (redis.RedisError, ValueError) as error:
        raise InputError(f"--redis-url {url}: {error}") from error


def check_sglang(venv: Path) -> None:
    """Raises InputError when the real SGLang is not installed where it is expected."""
    if not (venv / "bin" / "python").exists() or not list(venv.glob("lib/python3.*/site-packages/sglang")):
        raise InputError(f"--engine sglang: no SGLang in {venv}; run `make sglang` (or give --sglang-venv)")


def new_run(folder: RunFolder, recipe: Recipe) -> Recipe:
    """Create the folder of a new run and keep its resolved recipe there."""
    if folder.recipe.exists():
        raise InputError(f"run {folder.path.name}: {folder.path} exists; go on with --resume or choose another --name")
    with writing_to(f"--out {folder.path.parent}"):
        folder.path.mkdir(parents=True, exist_ok=True)
        folder.recipe.write_text(dump(recipe), "utf-8")
    return recipe


def resumed_run(folder: RunFolder, overrides: Sequence[str]) -> Recipe:
    """The recipe of an interrupted run, with changes to its learner section only."""
    if not folder.recipe.exists():
        raise InputError(f"--resume: there is no run {folder.path.name} in {folder.path.parent}")
    before, recipe = load(str(folder.recipe)), load(str(folder.recipe), overrides)
    for section in type(recipe).model_fields:
        if section != RESUMABLE_SECTION and getattr(before, section) != getattr(recipe, section):
            raise RecipeError(
                f"--set {section}.*: a resumed run can only change {RESUMABLE_SECTION}.*; start a new run"
            )
    folder.recipe.write_text(dump(recipe), "utf-8")
    return recipe


def discard(folder: RunFolder) -> None:
    """Remove what a preflight that failed later had begun."""
    shutil.rmtree(folder.path, ignore_errors=True)


def lock(folder: RunFolder) -> TextIO:
    """Hold the run's folder for this process; the lock ends with the process, however that ends.

    Raises:
        InputError: another process runs it.
    """
    file = folder.lock.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        file.close()
        raise InputError(f"run {folder.path.name} is running already (pid {owner}); choose another --name") from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file


def check(options: Options) -> None:
    """All checks of the options that need no dataset."""
    if options.redis_url:
        check_redis(options.redis_url)
    if options.engine == "sglang":
        check_sglang(options.sglang_venv)
    check_ports(options.ports)
