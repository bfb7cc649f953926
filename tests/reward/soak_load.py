"""Load for the scoring service: 200 clients, one item in twenty bad, and a probe that times /healthz meanwhile."""

import asyncio
import json
import random
import select
import ssl
import sys
import time
from dataclasses import dataclass

import httpx
import psutil
from scoring_items import item

from golongrl.reward.client import RewardClient
from golongrl.reward.models import Item, ScoreResult

CLIENTS = 200
BATCH = 16
BAD_SHARE = 0.05
BAD = ("SLEEP:1000", "SLEEP:1000", "SEGFAULT", "KILLED", "EXIT", "RAISE")  # hangs that leave the CPU to the others
DEADLINE_S = 4.0  # of an item; far above what a good one needs, also on a crowded machine
_TLS = ssl.create_default_context()  # 200 clients share one: making it costs each of them 20 ms


def batch(chance: random.Random, size: int) -> list[Item]:
    """Items, each bad with probability 1/20; its text says which it is."""
    texts = [chance.choice(BAD) if chance.random() < BAD_SHARE else "x" * chance.randrange(1, 999) for _ in range(size)]
    return [Item(**item(text, f"{number}")) for number, text in enumerate(texts)]


def check(items: list[Item], results: list[ScoreResult]) -> int:
    """Every good item has its own score, every bad one none; the number of bad ones."""
    for sent, got in zip(items, results, strict=True):
        if sent.response in BAD:
            assert (got.status, got.score) == ("unscored", None)
            assert got.reason
        else:
            assert got.score == len(sent.response) / 1000, got
    return sum(sent.response in BAD for sent in items)


async def client_loop(url: str, seed: int, rounds: int, size: int) -> int:
    """One client sends `rounds` batches one after the other; the number of bad items in them."""
    chance = random.Random(seed)
    bad = 0
    async with RewardClient(
        url, timeout_s=540, attempts=100, transport=httpx.AsyncHTTPTransport(verify=_TLS)
    ) as client:
        for _ in range(rounds):
            items = batch(chance, size)
            bad += check(items, await client.score(items, "compat"))
    return bad


def resident_bytes(pid: int) -> int:
    """Proportional memory of the whole process tree: shared pages count once."""
    tree = psutil.Process(pid)
    total = 0
    for process in (tree, *tree.children(recursive=True)):
        try:
            total += process.memory_full_info().pss
        except psutil.NoSuchProcess:  # it ended while we looked
            continue
    return total


@dataclass(frozen=True)
class Soaked:
    """What a soak saw: items sent, bad ones among them, seconds it took, and /healthz's times in seconds."""

    items: int
    bad: int
    seconds: float
    probes: list[float]


async def soak(url: str, rounds: int, size: int = BATCH) -> Soaked:
    """All clients at once, while another process asks /healthz twenty times a second."""
    probe = await asyncio.create_subprocess_exec(
        sys.executable, __file__, url, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    began = time.perf_counter()
    try:
        counts = await asyncio.gather(*(client_loop(url, seed, rounds, size) for seed in range(CLIENTS)))
        seconds = time.perf_counter() - began
        output, _ = await probe.communicate(b"stop")  # closes its stdin
    finally:
        if probe.returncode is None:
            probe.kill()
    return Soaked(CLIENTS * rounds * size, sum(counts), seconds, json.loads(output))


def probe_health(url: str) -> list[float]:
    """Seconds of every /healthz answer until stdin closes. In a process of its own: a busy client measures itself."""
    times: list[float] = []
    with httpx.Client(timeout=30) as http:
        while not select.select([sys.stdin], [], [], 0.05)[0]:
            began = time.perf_counter()
            http.get(f"{url}/healthz").raise_for_status()
            times.append(time.perf_counter() - began)
    return times


if __name__ == "__main__":
    print(json.dumps(probe_health(sys.argv[1])))
