"""The sample queue beside its limits: verl's MessageQueue actor with the same groups, plain SET/GET of the same bytes.

    python benchmarks/sample_queue.py [--groups 24] [--no-ray]

Groups have the paper's sizes (160K prompt, 16 responses of 16K) or about 64 KB; tokens follow a Zipf law over a 151K
vocabulary and log-probs an exponential one, so that they compress about as real ones do. One process, one connection at
a time on the way in and eight bodies a reply on the way out, for the queue and for plain Redis alike. Bytes in MB/s are
those on the wire. The codec's CPU time is apart; "end to end" has it in. (Not named queue.py: beside other scripts that
would hide the standard library's module of this name from them.)
"""

import argparse
import asyncio
import itertools
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import redis.asyncio as aioredis
import structlog
import zstandard
from rich.console import Console
from rich.table import Table

from golongrl.queue import (
    Batch,
    Group,
    Lease,
    QueueSettings,
    Response,
    SampleQueue,
    SubmitOutcome,
    VersionSpan,
    decode,
    encode,
)
from golongrl.queue.client import FETCH
from golongrl.queue.embedded import EmbeddedServer, Fsync

console = Console(width=150)
Mode = Literal["none", "everysec", "always"]
SIZES = {"64 KB": (4_000, 8, 700), "160K + 16 x 16K": (163_840, 16, 16_384)}
PORT = 7911


def sample(prompt: int, n: int, tokens: int, seed: int = 0) -> Group:
    """A group with `n` responses of `tokens` tokens."""
    chance = np.random.default_rng(seed)

    def ids(length: int) -> Any:
        return np.minimum(chance.zipf(1.2, length), 151_000).astype(np.int32)

    responses = tuple(
        Response(
            ids(tokens),
            -chance.exponential(0.4, tokens).astype(np.float32),
            (VersionSpan(3, 0, tokens // 2), VersionSpan(4, tokens // 2, tokens)),
            "stop",
            chance.random(),
        )
        for _ in range(n)
    )
    return Group("0-0", 0, 0, "T1", "F1", "F1", "qa", ids(prompt), responses, "w", 3)


def rebound(group: Group, lease: Lease) -> Group:
    """The same arrays under the lease's name, sampled by its engine."""
    responses = tuple(
        replace(response, version_spans=(VersionSpan(lease.engine_version, 0, len(response.ids)),))
        for response in group.responses
    )
    names = {"uid": lease.uid, "row": lease.row, "epoch": lease.epoch, "worker": lease.worker}
    return replace(group, **names, engine_version=lease.engine_version, responses=responses)


def codec() -> None:
    """What compression is worth."""
    table = Table("group", "codec", "bytes", "encode ms", "decode ms", title="Codec (CPU)")
    for size, shape in SIZES.items():
        group = sample(*shape)
        packed = encode(group)
        arrays = [
            group.prompt_ids,
            *(array for response in group.responses for array in (response.ids, response.logprobs)),
        ]
        raw = b"".join(array.tobytes() for array in arrays)
        table.add_row(size, "uncompressed", f"{len(raw):,}", "", "")
        table.add_row(
            size,
            "ours",
            f"{len(packed):,} ({len(packed) / len(raw):.0%})",
            f"{cpu_ms(encode, group):.1f}",
            f"{cpu_ms(decode, packed):.1f}",
        )
        for level in (-5, -1, 1, 3, 9):
            all_of_it = zstandard.ZstdCompressor(level=level).compress(raw)
            table.add_row(
                size,
                f"zstd {level} around all",
                f"{len(all_of_it):,} ({len(all_of_it) / len(raw):.0%})",
                f"{cpu_ms(zstandard.ZstdCompressor(level=level).compress, raw):.1f}",
                f"{cpu_ms(zstandard.ZstdDecompressor().decompress, all_of_it):.1f}",
            )
    console.print(table)


def cpu_ms(call: Callable[..., object], *arguments: object, times: int = 5) -> float:
    """Median CPU time of a call, in ms."""
    spent = []
    for _ in range(times):
        began = time.process_time()
        call(*arguments)
        spent.append(time.process_time() - began)
    return statistics.median(spent) * 1e3


async def seconds(work: Awaitable[object]) -> float:
    """Wall time."""
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


@contextmanager
def without_codec(body: bytes, group: Group) -> Iterator[None]:
    """Transport alone: the same bytes every time, not unpacked."""
    with patch("golongrl.queue.client.encode", lambda _: body), patch("golongrl.queue.client.decode", lambda _: group):
        yield


async def plain(url: str, body: bytes, groups: int) -> tuple[float, float]:
    """Seconds to SET and to MGET `groups` bodies."""
    async with aioredis.Redis.from_url(url) as client:

        async def write() -> None:
            for index in range(groups):
                await client.set(f"plain:{index}", body)

        async def read() -> None:
            for start in range(0, groups, FETCH):
                await client.mget([f"plain:{index}" for index in range(start, min(groups, start + FETCH))])

        times = await seconds(write()), await seconds(read())
        await client.delete(*(f"plain:{index}" for index in range(groups)))
        return times


async def queued(url: str, group: Group, groups: int, run: str) -> tuple[float, float]:
    """Seconds to submit `groups` groups (leased before: a lease carries no bytes), and to take them as one batch."""
    async with SampleQueue.from_url(url, run) as queue:
        await queue.setup(QueueSettings(groups, 0), [np.arange(groups, dtype=np.int32)], ["a"] * groups)
        fence = (await queue.attach(0)).token
        # The scripts are on the server and the connections open before the clock starts.
        await queue.stats()

        ready = []
        for _ in range(groups):
            lease = await queue.lease("w", 0)
            assert isinstance(lease, Lease)
            ready.append((lease, rebound(group, lease)))

        async def write() -> None:
            for lease, mine in ready:
                assert await queue.submit(lease, mine) is SubmitOutcome.ACCEPTED

        async def read() -> None:
            assert isinstance(await queue.take(fence, 1), Batch)

        times = await seconds(write()), await seconds(read())
        await queue.finish(fence, 1)
        await queue.commit(fence, 1)
        return times


async def throughput(groups: int) -> dict[str, tuple[float, float]]:
    """Queue against plain Redis in each durability mode; answers end-to-end groups/s of the default mode."""
    table = Table("group", "server", "", "in groups/s", "in MB/s", "out groups/s", "out MB/s", title="Throughput")
    best: dict[str, tuple[float, float]] = {}
    modes: tuple[Mode, ...] = ("none", "everysec", "always")
    for (size, shape), mode in itertools.product(SIZES.items(), modes):
        group = sample(*shape)
        body = encode(group)
        count = groups if len(body) > 1_000_000 else groups * 10
        async with server(mode) as running:
            rows: dict[str, list[tuple[float, float]]] = {"plain SET/MGET": [], "queue": [], "queue end to end": []}
            # Taken in turns, so that a busy moment of the machine hits all of them.
            for turn in range(4):
                rows["plain SET/MGET"].append(await plain(running.url, body, count))
                with without_codec(body, group):
                    rows["queue"].append(await queued(running.url, group, count, f"q{turn}"))
                rows["queue end to end"].append(await queued(running.url, group, count, f"e{turn}"))
        limit = fastest(rows["plain SET/MGET"])
        for name, times in rows.items():
            there, back = fastest(times)
            if mode == "everysec" and name == "queue end to end":
                best[size] = (count / there, count / back)
            share = (lambda t, base: f" ({base / t:.0%})") if name == "queue" else (lambda _t, _base: "")
            table.add_row(
                size,
                mode,
                name,
                f"{count / there:.1f}{share(there, limit[0])}",
                f"{count * len(body) / there / 1e6:.0f}",
                f"{count / back:.1f}{share(back, limit[1])}",
                f"{count * len(body) / back / 1e6:.0f}",
            )
    console.print(table)
    return best


def fastest(times: list[tuple[float, float]]) -> tuple[float, float]:
    """Each way's best: the least disturbed."""
    return min(there for there, _ in times), min(back for _, back in times)


def server(mode: Mode) -> EmbeddedServer:
    """A fresh server."""
    fsync: Fsync | None = None if mode == "none" else mode
    return EmbeddedServer(PORT, Path(tempfile.mkdtemp(prefix="bench-")), appendfsync=fsync)


async def durability() -> None:
    """What a confirmed take or finish costs the learner, per call."""
    table = Table("server", "take (batch of 8 x 64 KB) ms", "finish ms", "commit ms", "submit ms", title="Durability")
    modes: tuple[Mode, ...] = ("none", "everysec", "always")
    group = sample(*SIZES["64 KB"])
    for mode in modes:
        spent: dict[str, list[float]] = {"take": [], "finish": [], "commit": [], "submit": []}
        async with server(mode) as running, SampleQueue.from_url(running.url, "d") as queue:
            await queue.setup(QueueSettings(8, 0), [np.arange(160, dtype=np.int32)], ["a"] * 160)
            fence = (await queue.attach(0)).token
            for step in range(1, 16):
                for _ in range(8):
                    lease = await queue.lease("w", step - 1)
                    assert isinstance(lease, Lease)
                    spent["submit"].append(await seconds(queue.submit(lease, rebound(group, lease))))
                began = time.perf_counter()
                batch = await queue.take(fence, step)
                spent["take"].append(time.perf_counter() - began)
                assert isinstance(batch, Batch), batch
                spent["finish"].append(await seconds(queue.finish(fence, step)))
                spent["commit"].append(await seconds(queue.commit(fence, step)))
        label = {"none": "no AOF", "everysec": "everysec + WAITAOF", "always": "always"}[mode]
        row = [f"{statistics.median(spent[name]) * 1e3:.1f}" for name in ("take", "finish", "commit", "submit")]
        table.add_row(label, *row)
    console.print(table)


async def leases(workers: int = 256, per_second: float = 200.0, length_s: float = 10.0) -> None:
    """Latency of lease with many workers, each with its own client, arriving evenly."""
    spent: list[float] = []
    async with server("everysec") as running, aioredis.Redis.from_url(running.url) as admin:
        rows = 100_000
        async with SampleQueue.from_url(running.url, "l") as owner:
            await owner.setup(QueueSettings(1024, 1), [np.arange(rows, dtype=np.int32)], ["a"] * rows)
        queues = [SampleQueue.from_url(running.url, "l") for _ in range(workers)]

        async def one(index: int) -> None:
            queue = queues[index]
            await asyncio.sleep(index / per_second)
            until = time.perf_counter() + length_s
            while time.perf_counter() < until:
                began = time.perf_counter()
                lease = await queue.lease(f"w{index}", 0)
                spent.append(time.perf_counter() - began)
                assert isinstance(lease, Lease)
                await asyncio.sleep(workers / per_second / 2)
                await queue.release(lease, "bench")
                await asyncio.sleep(workers / per_second / 2)

        await asyncio.gather(*(one(index) for index in range(workers)))
        calls = (await admin.info("commandstats"))["cmdstat_evalsha"]
        for queue in queues:
            await queue.aclose()
    # Each worker's first lease opens its connection.
    p50, p99 = np.percentile(np.array(spent[workers:]) * 1e3, [50, 99])
    console.print(
        f"lease with {workers} workers, {per_second:g} leases and as many releases a second: "
        f"p50 {p50:.2f} ms, p99 {p99:.2f} ms; on the server {calls['usec_per_call']:.0f} us a call; "
        f"machine load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )


def ray_actor(groups: int, ours: dict[str, tuple[float, float]]) -> None:
    """verl's MessageQueue with the same groups, cloudpickled as verl does."""
    import ray
    from verl.experimental.fully_async_policy.message_queue import MessageQueue

    columns = ("group", "in groups/s", "out groups/s", "queue / actor in", "queue / actor out")
    table = Table(*columns, title="verl MessageQueue")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        for size, shape in SIZES.items():
            group = sample(*shape)
            count = groups if shape[0] > 100_000 else groups * 10
            there, back = [], []
            actor = MessageQueue.remote({}, count * 2)
            for _ in range(4):
                began = time.perf_counter()
                for _ in range(count):
                    ray.get(actor.put_sample.remote(ray.cloudpickle.dumps(group)))
                there.append(time.perf_counter() - began)
                began = time.perf_counter()
                for _ in range(count):
                    ray.cloudpickle.loads(ray.get(actor.get_sample.remote())[0])
                back.append(time.perf_counter() - began)
            ray.kill(actor)
            into, out = count / min(there), count / min(back)
            table.add_row(
                size, f"{into:.1f}", f"{out:.1f}", f"{ours[size][0] / into:.2f}x", f"{ours[size][1] / out:.2f}x"
            )
    finally:
        ray.shutdown()
    console.print(table)


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=24, help="large groups a turn; ten times as many small")
    parser.add_argument("--no-ray", action="store_true", help="leave verl's actor out")
    options = parser.parse_args()
    # The server without an append-only file would say so at every turn.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    console.print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores at the start")
    codec()
    ours = asyncio.run(throughput(options.groups))
    asyncio.run(durability())
    asyncio.run(leases())
    if not options.no_ray:
        ray_actor(options.groups, ours)


if __name__ == "__main__":
    main()
