"""A run of `golongrl train` on this machine: found by its folder, without an address. The headline is pure."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from golongrl import recipe as recipes
from golongrl.errors import InputError
from golongrl.reading import refuse_endless, small_text
from golongrl.recipe import RecipeError
from golongrl.telemetry import history, watchdog
from golongrl.telemetry.history import History
from golongrl.telemetry.run_info import FILE, RUNS, RunInfo, others, resume_command
from golongrl.telemetry.watch_record import STALE_S, WatchRecord

Json = Mapping[str, Any]

# States of a service, as its supervisor calls them, that are no news.
_AT_WORK: Final = ("up", "done")


def read(folder: Path) -> RunInfo:
    """What the run's supervisor wrote down.

    Raises:
        InputError: there is no run in the folder, or a file of it would be read for ever.
    """
    info = RunInfo.read(folder)
    if info is None:
        raise InputError(
            f"status: no run in {folder} (it has no {FILE}); {others(folder.parent)}; give --name and --out, "
            "or --redis-url and --run"
        )
    refuse_endless(folder, f"status: run {folder.name}")
    return info


def alive(info: RunInfo) -> bool:
    """Whether the run's supervisor lives on this machine; its process id alone may be another process's by now."""
    import psutil

    try:
        return abs(psutil.Process(info.pid).create_time() - info.pid_started) < 1
    except psutil.NoSuchProcess:
        return False


def password(info: RunInfo) -> str | None:
    """The password of the run's own Redis; of an outside one it comes by the environment.

    Raises:
        InputError: the file that has it cannot be read.
    """
    if info.password_file is None:
        from golongrl.queue.address import password as queue_password

        return queue_password()
    try:
        return small_text(Path(info.password_file)).strip()
    except OSError as error:
        raise InputError(f"status: {info.password_file}: {error.strerror}") from error


def stalls(info: RunInfo, record: WatchRecord | None, *, lives: bool) -> list[str]:
    """Who holds up the run, as its supervisor sees it; and that the supervisor itself does not look."""
    if not lives or info.state != "running" or record is None:
        return []
    if record.age_s > STALE_S:
        return [f"the supervisor (pid {info.pid}) has not looked at the run for {record.age_s:.0f} s: is it stopped?"]
    return list(record.stalls)


def away(record: WatchRecord | None, services: Iterable[Json]) -> list[str]:
    """Who is not at work although nothing is called stuck: what the supervisor starts or ends, else whom the queue's
    `services` have not heard of lately."""
    if record is None or record.stalls:
        return []
    down = [f"{name}: {state}" for name, state in record.states.items() if state not in _AT_WORK]
    silent = (f"{process.name} {process.trouble}" for process in watchdog.read(services).values() if process.trouble)
    return down or list(silent)


def headline(info: RunInfo, records: History, *, lives: bool, wanted: int | None = None, out: Path = RUNS) -> str:
    """The run in one line; `wanted` is the recipe's learner.steps, `out` the folder of runs."""
    step = records.steps[-1] if records.steps else 0
    if info.state == "done":
        return history.summary(records, wanted)
    if info.state in ("preparing", "running") and lives:
        secret = f", its password in {info.password_file}" if info.password_file else ""
        return f"{info.run}: {info.state} since {info.started} (pid {info.pid}), step {step}, {info.redis_url}{secret}"
    why = info.detail or f"its supervisor (pid {info.pid}) was killed"
    state = "failed" if info.state == "failed" else "stopped"
    return f"{info.run}: {state} after step {step}: {why}; {resume_command(info.run, out)} continues it"


def wanted_steps(folder: Path) -> int | None:
    """learner.steps of the run's recipe; None where that says nothing, or cannot be read."""
    try:
        return recipes.load(str(folder / "recipe.yaml")).learner.steps
    except RecipeError:
        return None
