"""The sample queue beside its limits: verl's MessageQueue actor with the same groups, plain SET/GET of the same bytes.

    python benchmarks/sample_queue.py [--groups 24] [--turns 4] [--no-ray] [--only codec|throughput|durability|leases]

Groups have the paper's sizes (160K prompt, 16 responses of 16K) or about 64 KB; tokens follow a Zipf law over a 151K
vocabulary and log-probs an exponential one, so that they compress about as real ones do. One process; one group at a
time or eight at once on the way in, as a worker's slots hand them in, and eight bodies a reply on the way out, for the
queue and for plain Redis alike. Both give the same promises: a write in is not confirmed on disk, a batch out is, once
(plain Redis: one write and WAITAOF beside its MGETs). Bytes in MB/s are those on the wire. The codec's CPU time is
apart; "end to end" has it in. verl's actor keeps everything in shared memory of one machine and promises nothing after
a crash; it gets the same compact groups, and what verl itself puts there: padded int64 tensors with the prompt once a
response. (Not named queue.py: beside other scripts that would hide the standard library's module of this name.)
"""

import argparse
import asyncio
import itertools
import logging
import os
import statistics
import sys
import tempfile
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import redis.asyncio as aioredis
import structlog
from rich.console import Console
from rich.table import Table

from golongrl.local.redis_command import Fsync
from golongrl.queue import (
    Batch,
    Group,
    Lease,
    Response,
    SampleQueue,
    SubmitOutcome,
    VersionSpan,
    decode,
    encode,
)
from golongrl.queue.bodies import FETCH

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from support.embedded_server import EmbeddedServer
from support.groups import queue_settings

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
        squeezed = zlib.compress(raw, 1)
        table.add_row(
            size,
            "zlib 1 around all",
            f"{len(squeezed):,} ({len(squeezed) / len(raw):.0%})",
            f"{cpu_ms(zlib.compress, raw, 1):.1f}",
            f"{cpu_ms(zlib.decompress, squeezed):.1f}",
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
    """Transport alone: the same bytes every time, neither unpacked nor checked (they name another lease)."""
    with patch("golongrl.queue.bodies.encode", lambda _: body), patch("golongrl.queue.bodies._read", lambda *_: group):
        yield


Times = tuple[float, float, float]
"""Seconds for all groups: in one at a time, in eight at once, out."""
AT_ONCE = 8


async def spread(count: int, at_once: int, work: Callable[[int], Awaitable[object]]) -> None:
    """`work(0)` to `work(count - 1)`, `at_once` of them under way at any time."""
    numbers = iter(range(count))

    async def one() -> None:
        for number in numbers:
            await work(number)

    await asyncio.gather(*(one() for _ in range(at_once)))


async def plain(url: str, mode: Mode, body: bytes, groups: int) -> Times:
    """SET and MGET of `groups` bodies, with one write that is confirmed on disk as `mode` has it."""
    async with aioredis.Redis.from_url(url) as client:

        async def write(index: int) -> None:
            await client.set(f"plain:{index}", body)

        async def confirm() -> None:
            pipe = client.pipeline(transaction=False).incr("plain:confirmed")
            await (pipe.execute_command("WAITAOF", 1, 0, 10_000) if mode == "everysec" else pipe).execute()

        async def read() -> None:
            await asyncio.gather(confirm(), fetch())

        async def fetch() -> None:
            for start in range(0, groups, FETCH):
                await client.mget([f"plain:{index}" for index in range(start, min(groups, start + FETCH))])

        async def forget() -> None:
            await client.delete(*(f"plain:{index}" for index in range(groups)))

        one = await seconds(spread(groups, 1, write))
        await forget()
        eight = await seconds(spread(groups, AT_ONCE, write))
        out = await seconds(read())
        await forget()
        return one, eight, out


async def queued(url: str, group: Group, groups: int, run: str) -> Times:
    """Submit `groups` groups twice (leased before: a lease carries no bytes), and take the second lot as one batch."""
    async with SampleQueue.from_url(url, run) as queue:
        await queue.setup(queue_settings(groups, 0), [np.arange(groups * 2, dtype=np.int32)], ["a"] * groups * 2)
        fence = (await queue.attach(0)).token
        times: list[float] = []
        for step, at_once in ((1, 1), (2, AT_ONCE)):
            leases = [await queue.lease("w", step - 1) for _ in range(groups)]
            ready = [(lease, rebound(group, lease)) for lease in leases if isinstance(lease, Lease)]

            async def write(index: int, ready: list[tuple[Lease, Group]] = ready) -> None:
                assert await queue.submit(*ready[index]) is SubmitOutcome.ACCEPTED

            # The scripts are on the server and the connections open before the clock starts.
            await asyncio.gather(*(queue.stats() for _ in range(at_once)))
            times.append(await seconds(spread(groups, at_once, write)))
            began = time.perf_counter()
            assert isinstance(await queue.take(fence, step), Batch)
            out = time.perf_counter() - began
            await queue.finish(fence, step)
            await queue.commit(fence, step)
        return times[0], times[1], out


async def throughput(groups: int, turns: int) -> dict[str, Times]:
    """Queue against plain Redis in each durability mode; answers seconds a group of the default mode, end to end."""
    columns = ("group", "server", "", "in/s, one at a time", "in/s, 8 at once", "in MB/s", "out/s", "out MB/s")
    table = Table(*columns, title="Throughput, groups a second")
    best: dict[str, Times] = {}
    modes: tuple[Mode, ...] = ("none", "everysec", "always")
    for (size, shape), mode in itertools.product(SIZES.items(), modes):
        group = sample(*shape)
        body = encode(group)
        count = groups if len(body) > 1_000_000 else groups * 10
        async with server(mode) as running:
            rows: dict[str, list[Times]] = {"plain SET/MGET": [], "queue": [], "queue end to end": []}
            # Taken in turns, so that a busy moment of the machine hits all of them.
            for turn in range(turns):
                rows["plain SET/MGET"].append(await plain(running.url, mode, body, count))
                with without_codec(body, group):
                    rows["queue"].append(await queued(running.url, group, count, f"q{turn}"))
                rows["queue end to end"].append(await queued(running.url, group, count, f"e{turn}"))
        limit = fastest(rows["plain SET/MGET"])
        for name, found in rows.items():
            times = fastest(found)
            if mode == "everysec" and name == "queue end to end":
                best[size] = (times[0] / count, times[1] / count, times[2] / count)
            share = [f" ({base / t:.0%})" if name == "queue" else "" for t, base in zip(times, limit, strict=True)]
            one, eight, out = (f"{count / t:.1f}{of}" for t, of in zip(times, share, strict=True))
            rates = (f"{count * len(body) / t / 1e6:.0f}" for t in times[1:])
            table.add_row(size, mode, name, one, eight, next(rates), out, next(rates))
    console.print(table)
    return best


def fastest(times: list[Times]) -> Times:
    """Each way's best: the least disturbed."""
    one, eight, out = (min(way) for way in zip(*times, strict=True))
    return one, eight, out


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
            await queue.setup(queue_settings(8, 0), [np.arange(160, dtype=np.int32)], ["a"] * 160)
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
            await owner.setup(queue_settings(1024, 1), [np.arange(rows, dtype=np.int32)], ["a"] * rows)
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


def verls_own(group: Group) -> Any:
    """The group as verl's rollouter hands it over: one padded int64 row a response, the prompt in each."""
    import torch
    from verl import DataProto

    n = len(group.responses)
    prompts = torch.from_numpy(group.prompt_ids.astype(np.int64)).repeat(n, 1)
    responses = torch.from_numpy(np.stack([response.ids for response in group.responses]).astype(np.int64))
    whole = torch.cat([prompts, responses], dim=1)
    return DataProto.from_dict(
        {
            "prompts": prompts,
            "responses": responses,
            "input_ids": whole,
            "attention_mask": torch.ones_like(whole),
            "position_ids": torch.arange(whole.shape[1]).repeat(n, 1),
            "response_mask": torch.ones_like(responses),
            "rollout_log_probs": torch.from_numpy(np.stack([response.logprobs for response in group.responses])),
        }
    )


def ray_actor(groups: int, turns: int, ours: dict[str, Times]) -> None:
    """verl's MessageQueue with the same groups, cloudpickled as verl does."""
    import ray
    from verl.experimental.fully_async_policy.message_queue import MessageQueue

    columns = ("group", "sample", "pickled", "in/s", "out/s", "queue / actor in", "queue / actor out")
    table = Table(*columns, title="verl MessageQueue, one at a time, end to end")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        for size, shape in SIZES.items():
            group = sample(*shape)
            large = shape[0] > 100_000
            for name, content in (("compact", group), ("verl's own", verls_own(group))):
                count = groups * (1 if large else 10) // (6 if name != "compact" else 1) or 1
                actor = MessageQueue.remote({}, count * 2)
                ray.get(actor.get_queue_size.remote())
                there, back = zip(*(actor_turn(ray, actor, content, count) for _ in range(turns)), strict=True)
                ray.kill(actor)
                into, out = count / min(there), count / min(back)
                table.add_row(
                    size,
                    name,
                    f"{len(ray.cloudpickle.dumps(content)) / 1e6:.2f} MB",
                    f"{into:.1f}",
                    f"{out:.1f}",
                    f"{1 / ours[size][0] / into:.2f}x",
                    f"{1 / ours[size][2] / out:.2f}x",
                )
    finally:
        ray.shutdown()
    console.print(table)


def actor_turn(ray: Any, actor: Any, content: Any, count: int) -> tuple[float, float]:
    """Seconds to put `count` samples and to get them."""
    began = time.perf_counter()
    for _ in range(count):
        ray.get(actor.put_sample.remote(ray.cloudpickle.dumps(content)))
    between = time.perf_counter()
    for _ in range(count):
        ray.cloudpickle.loads(ray.get(actor.get_sample.remote())[0])
    return between - began, time.perf_counter() - between


def main() -> None:
    """Print every table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=24, help="large groups a turn; ten times as many small")
    parser.add_argument("--turns", type=int, default=4, help="the best of so many turns counts")
    parser.add_argument("--no-ray", action="store_true", help="leave verl's actor out")
    parser.add_argument("--only", choices=("codec", "throughput", "durability", "leases"), help="one part alone")
    options = parser.parse_args()
    parts = {options.only} if options.only else {"codec", "throughput", "durability", "leases"}
    # The server without an append-only file would say so at every turn.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    console.print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores at the start")
    if "codec" in parts:
        codec()
    if "durability" in parts:
        asyncio.run(durability())
    if "leases" in parts:
        asyncio.run(leases())
    if "throughput" in parts:
        ours = asyncio.run(throughput(options.groups, options.turns))
        if not options.no_ray:
            ray_actor(options.groups, options.turns, ours)


if __name__ == "__main__":
    main()
