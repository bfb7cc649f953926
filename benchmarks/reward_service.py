"""The scoring service: its own time per item, and how it bears bad items. Run by hand on an otherwise idle machine.

    python benchmarks/reward_service.py            # overhead, then a soak of 200 clients
    python benchmarks/reward_service.py --soak 10  # ten batches a client

Overhead: batches of 16 from one client over a real socket, with a score function that costs nothing, so that all time
is the service's (HTTP, JSON, validation, queue, pipes, metrics). "wall" is of a body that was encoded before, "typed
client" of RewardClient.score, which also encodes and checks. Goal: at most 2 ms of wall per item.
Soak: one item in twenty hangs or kills its worker. Goals: /healthz within 100 ms throughout, memory flat.
"""

import argparse
import asyncio
import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles

import httpx
import psutil
from rich.console import Console
from rich.table import Table

TESTS = Path(__file__).parents[1] / "tests" / "reward"
sys.path.insert(0, str(TESTS))

from scoring_items import item  # noqa: E402
from soak_load import BATCH, resident_bytes, soak  # noqa: E402

from golongrl.reward.client import RewardClient, encode  # noqa: E402
from golongrl.reward.models import Item, ScoreRequest  # noqa: E402

SIZES = {"1K tokens": 4_000, "16K tokens": 64_000}  # characters
SECONDS = 4.0  # of measuring, per row


def serve(workers: int, deadline_s: float) -> tuple[subprocess.Popen[bytes], str]:
    """A server process with warm workers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, str(TESTS / "serve_misbehaving.py"), str(port), str(workers), str(deadline_s)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        try:
            if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                return process, url
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise SystemExit("error: the server was not ready within 60 s")


def paced(call: Callable[[], object], size: int) -> list[float]:
    """Milliseconds per item of each call, over SECONDS."""
    walls: list[float] = []
    until = time.perf_counter() + SECONDS
    while (began := time.perf_counter()) < until:
        call()
        walls.append(1e3 * (time.perf_counter() - began) / size)
    return walls


async def overhead(console: Console, url: str, service: psutil.Process) -> None:
    """A table of milliseconds per item: wall time of a batch, and CPU time of the service's main process."""
    columns = ("batch", "answer", "wall ms/item (median)", "p95", "service CPU ms/item", "typed client (median)")
    table = Table(*columns, title="Overhead, one client")
    raw = http.client.HTTPConnection(url.removeprefix("http://"))
    async with RewardClient(url) as client:
        for size in (1, BATCH):
            for name, characters in SIZES.items():
                text = ("The quick brown fox, 敏捷的狐狸.\n" * (characters // 24))[:characters]
                items = [Item(**item(text, str(n))) for n in range(size)]
                body = encode(ScoreRequest(mode="compat", items=items))

                def post(body: bytes = body) -> None:
                    raw.request("POST", "/v1/score", body, {"Content-Type": "application/json"})
                    answer = raw.getresponse()
                    if answer.status != 200:
                        raise SystemExit(f"error: HTTP {answer.status}: {answer.read()!r}")
                    answer.read()

                post()
                cpu = sum(service.cpu_times()[:2])
                walls = paced(post, size)
                used = 1e3 * (sum(service.cpu_times()[:2]) - cpu) / (len(walls) * size)
                typed: list[float] = []
                for _ in range(20):
                    began = time.perf_counter()
                    await client.score(items, "compat")
                    typed.append(1e3 * (time.perf_counter() - began) / size)
                row = (median(walls), quantiles(walls, n=20)[-1], used, median(typed))
                table.add_row(str(size), name, *(f"{value:.3f}" for value in row))
    raw.close()
    console.print(table)


async def soaked(console: Console, url: str, service: psutil.Process, rounds: int) -> None:
    """Two soaks one after the other: memory must not grow from one to the next."""
    table = Table(
        "items",
        "bad",
        "seconds",
        "items/s",
        "/healthz p50",
        "p99",
        "max ms",
        "memory MB",
        "fds",
        title="Soak, 200 clients",
    )
    for _ in range(3):
        seen = await soak(url, rounds)
        probes = sorted(1e3 * seconds for seconds in seen.probes)
        p50, p99 = median(probes), quantiles(probes, n=100)[-1]
        row = [
            seen.items,
            seen.bad,
            f"{seen.seconds:.1f}",
            f"{seen.items / seen.seconds:.0f}",
            f"{p50:.1f}",
            f"{p99:.1f}",
        ]
        row += [f"{probes[-1]:.1f}", f"{resident_bytes(service.pid) / 1e6:.0f}", service.num_fds()]
        table.add_row(*map(str, row))
    console.print(table)


def main() -> None:
    """Parse the options, measure, stop the servers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="workers while overhead is measured")
    parser.add_argument("--soak-workers", type=int, default=12, help="workers during the soak: some are always hanging")
    parser.add_argument("--soak", type=int, default=3, help="batches each of the 200 clients sends; 0 skips the soak")
    options = parser.parse_args()
    console = Console()
    stages = [(options.workers, 10.0, overhead, ())]
    if options.soak:
        stages.append((options.soak_workers, 0.5, soaked, (options.soak,)))
    for workers, deadline_s, measure, extra in stages:
        process, url = serve(workers, deadline_s)
        try:
            asyncio.run(measure(console, url, psutil.Process(process.pid), *extra))
        finally:
            process.terminate()
            code = process.wait(30)
        console.print(f"exit code after SIGTERM: {code}")


if __name__ == "__main__":
    main()
