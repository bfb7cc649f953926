"""`golongrl queue`: look into a run's queue, and decide about the groups that were set aside."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from golongrl.errors import InputError, printable

if TYPE_CHECKING:
    from golongrl.queue.client import SampleQueue

app = typer.Typer(
    help="The sample queue: what it holds, what the next batch waits for, what was set aside.",
    epilog="Example: `golongrl queue stats --redis-url redis://localhost:6379/0 --run quickstart`",
    no_args_is_help=True,
)

T = TypeVar("T")
RedisUrl = Annotated[
    str,
    typer.Option(
        envvar="GOLONGRL_REDIS_URL",
        help="Redis or Valkey of the run; its password may come in GOLONGRL_REDIS_PASSWORD, or in the file that "
        "GOLONGRL_REDIS_PASSWORD_FILE names.",
    ),
]
Run = Annotated[str, typer.Option(envvar="GOLONGRL_RUN", help="Name of the run.")]
# Of the most groups that a queue can hold; each of their calls has a deadline of its own.
_CHANGE_S = 3600.0


@app.command(epilog="Example: `golongrl queue stats --redis-url redis://localhost:6379/0 --run quickstart`")
def stats(
    redis_url: RedisUrl,
    run: Run,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Where rows are, bytes, leases, staleness, what was rejected or redone, and what the next batch waits for."""
    import json
    from dataclasses import asdict

    from golongrl.queue.show import stats_lines

    found = _look(redis_url, run, lambda queue: queue.stats())
    print(json.dumps(asdict(found)) if as_json else printable("\n".join(stats_lines(found))))


@app.command(epilog="Example: `golongrl queue peek 0-17 --redis-url redis://localhost:6379/0 --run quickstart`")
def peek(
    uid: Annotated[str, typer.Argument(help="The row, as EPOCH-ROW.")],
    redis_url: RedisUrl,
    run: Run,
) -> None:
    """Where one row stands, and its group of responses while the queue holds one."""
    from golongrl.queue.show import peek_lines

    print(printable("\n".join(peek_lines(_look(redis_url, run, lambda queue: queue.peek(uid))))))


@app.command(epilog="Example: `golongrl queue check --redis-url redis://localhost:6379/0 --run quickstart`")
def check(redis_url: RedisUrl, run: Run) -> None:
    """Whether the server can hold a queue: eviction, persistence, replicas, version."""
    from golongrl.queue.errors import QueueServerError

    report = _look(redis_url, run, lambda queue: queue.inspect_server())
    for warning in report.warnings:
        print(f"warning: {warning}")
    if report.refusals:
        raise QueueServerError("this server cannot hold a queue: " + "; ".join(report.refusals))
    print(f"OK: writes are confirmed by {report.durability.value}, and by {report.replicas} replicas")


@app.command(epilog="Example: `golongrl queue remove --run quickstart --yes --redis-url redis://localhost:6379/0`")
def remove(
    redis_url: RedisUrl,
    run: Run,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a run's keys. Stop its learner and workers first; its next learner resumes at its last checkpoint."""
    if not yes:
        try:
            agreed = typer.confirm(f"Delete all groups of run {run} since its last checkpoint?")
        except typer.Abort:
            agreed = False
        if not agreed:
            raise InputError("queue remove: not confirmed, nothing was deleted; --yes deletes without asking")
    print(f"removed {_change(redis_url, run, lambda queue: queue.forget())} keys")


set_aside = typer.Typer(
    help="Groups that were taken for a batch and could not be trained; the run continues without them.",
    epilog="Example: `golongrl queue set-aside list --redis-url redis://localhost:6379/0 --run quickstart`",
    no_args_is_help=True,
)
app.add_typer(set_aside, name="set-aside")
Uids = Annotated[list[str] | None, typer.Argument(help="The groups' rows, as EPOCH-ROW.")]
Everyone = Annotated[bool, typer.Option("--all", help="Every group that is set aside.")]


@set_aside.command(
    "list", epilog="Example: `golongrl queue set-aside list --redis-url redis://localhost:6379/0 --run quickstart`"
)
def list_set_aside(
    redis_url: RedisUrl,
    run: Run,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array instead of text.")] = False,
) -> None:
    """Each group with its step, its worker and why it cannot be trained. `golongrl queue peek UID` shows its tokens."""
    import json
    from dataclasses import asdict

    from golongrl.queue.show import set_aside_lines

    groups = _look(redis_url, run, lambda queue: queue.set_aside_groups())
    print(json.dumps([asdict(group) for group in groups]) if as_json else printable("\n".join(set_aside_lines(groups))))


@set_aside.command(epilog="Example: `golongrl queue set-aside retry 0-17 --redis-url redis://localhost:6379/0 --run q`")
def retry(redis_url: RedisUrl, run: Run, uids: Uids = None, everyone: Everyone = False) -> None:
    """Deal the rows of these groups once more."""
    _end_set_aside(redis_url, run, uids or [], everyone, retry=True)


@set_aside.command(epilog="Example: `golongrl queue set-aside drop --all --redis-url redis://localhost:6379/0 --run q`")
def drop(redis_url: RedisUrl, run: Run, uids: Uids = None, everyone: Everyone = False) -> None:
    """Reject the rows of these groups and free their memory."""
    _end_set_aside(redis_url, run, uids or [], everyone, retry=False)


def _end_set_aside(redis_url: str, run: str, uids: list[str], everyone: bool, *, retry: bool) -> None:
    from golongrl.errors import InputError
    from golongrl.queue.errors import QueueError

    if bool(uids) == everyone:
        raise InputError("set-aside: give the rows (EPOCH-ROW), or --all")

    async def end(queue: "SampleQueue") -> tuple[list[str], list[str]]:
        chosen = [group.uid for group in await queue.set_aside_groups()] if everyone else [*dict.fromkeys(uids)]
        call = queue.retry_set_aside if retry else queue.drop_set_aside
        missing = [uid for uid in chosen if not await call(uid)]
        return [uid for uid in chosen if uid not in missing], missing

    done, missing = _change(redis_url, run, end)
    if done or not missing:
        print(f"{'dealt once more' if retry else 'rejected'}: {printable(', '.join(done)) or 'no group'}")
    if missing:
        raise QueueError(
            f"run {run} has not set aside {', '.join(missing)}; `golongrl queue set-aside list` says what it has"
        )


def _change(url: str, run: str, change: "Callable[[SampleQueue], Awaitable[T]]") -> T:
    """As `_look`, for as long as the change takes: of many groups, say. A server that is silent is told at once."""
    _look(url, run, lambda queue: queue.inspect_server())
    return _look(url, run, change, within_s=_CHANGE_S)


def _look(url: str, run: str, ask: "Callable[[SampleQueue], Awaitable[T]]", *, within_s: float | None = None) -> T:
    from golongrl.queue.address import naming_environment
    from golongrl.queue.look import LOOK_S, look
    from golongrl.telemetry.logging import configure

    # The error names what was waited for; a line for each try would hide it.
    configure("queue", run, level="ERROR")
    with naming_environment(url):
        return asyncio.run(look(url, run, ask, within_s=within_s or LOOK_S))
