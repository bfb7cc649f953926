"""`golongrl queue`: look into a run's queue. Changes nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from golongrl.queue.client import SampleQueue

app = typer.Typer(
    help="The sample queue: what it holds and who holds it up.",
    epilog="Example: `golongrl queue stats --redis-url redis://localhost:6379/0 --run quickstart`",
    no_args_is_help=True,
)

T = TypeVar("T")
RedisUrl = Annotated[
    str,
    typer.Option(
        envvar="GOLONGRL_REDIS_URL", help="Redis or Valkey of the run; a password may come by GOLONGRL_REDIS_PASSWORD."
    ),
]
Run = Annotated[str, typer.Option(envvar="GOLONGRL_RUN", help="Name of the run.")]
# A person looks: give up soon.
LOOK_S = 5.0


@app.command(epilog="Example: `golongrl queue stats --redis-url redis://localhost:6379/0 --run quickstart`")
def stats(
    redis_url: RedisUrl,
    run: Run,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Depth, bytes, leases, staleness, what was rejected or redone, and the group that holds up the next batch."""
    import json
    from dataclasses import asdict

    from golongrl.queue.show import stats_lines

    found = _look(redis_url, run, lambda queue: queue.stats())
    print(json.dumps(asdict(found)) if as_json else "\n".join(stats_lines(found)))


@app.command(epilog="Example: `golongrl queue peek 0-17 --redis-url redis://localhost:6379/0 --run quickstart`")
def peek(
    uid: Annotated[str, typer.Argument(help="The row, as EPOCH-ROW.")],
    redis_url: RedisUrl,
    run: Run,
) -> None:
    """Where one row stands, and its group of responses while the queue holds one."""
    from golongrl.queue.show import peek_lines

    print("\n".join(peek_lines(_look(redis_url, run, lambda queue: queue.peek(uid)))))


def _look(url: str, run: str, ask: "Callable[[SampleQueue], Awaitable[T]]") -> T:
    from golongrl.queue.client import SampleQueue
    from golongrl.queue.connection import Patience
    from golongrl.telemetry.logging import configure

    # What was waited for is in the error; a line a try would only hide it.
    configure("queue", run, level="ERROR")

    async def look() -> T:
        async with SampleQueue.from_url(url, run, patience=Patience(total_s=LOOK_S)) as queue:
            return await ask(queue)

    return asyncio.run(look())
