"""One chaotic run: a real server, workers and a learner as processes, and a seeded hand that hurts them.

What is seeded is the schedule of blows; what they hit is the operating system's business, so a seed that finds
something is run again many times.
"""

import asyncio
import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import redis
import redis.asyncio as aioredis

from golongrl.queue import SampleQueue
from support import queue_picture
from support.embedded_server import EmbeddedServer
from support.redis_server import free_port

from .actors import GROUPS_PER_STEP, set_up
from .proxy import Proxy

ACTORS = Path(__file__).with_name("actors.py")
# Once the blows have stopped, no step takes this long even where many other processes want the machine.
CALM_S = 180.0
# While it storms leases are to expire; afterwards the slowest machine is to get its work done within one.
STORM_LEASE_S, CALM_LEASE_S = 0.7, 60.0


# What a blow may be, and how often.
KILLS = {"kill": 4, "stop": 4, "cut": 6, "second learner": 1, "server": 2}
FREEZES = {"stop": 6, "freeze server": 4, "kill": 1}
NETWORK = {"cut": 3, "stall": 4, "cut in mid-reply": 6}
FAIL_OVERS = {"fail-over": 3, "lost primary": 3, "cut": 2, "kill": 1}
POISON = {"broken body": 8, "kill": 2, "second learner": 1}
REPLACEMENTS = {"broken body": 2, "broken body and kill": 6, "server": 1}
# So that a confirmed write is with both nodes, and a primary that is cut off takes none.
REPLICATED = {"min-replicas-to-write": "1", "min-replicas-max-lag": "2", "repl-diskless-sync-delay": "0"}
# Breaks the body of the newest group that nobody has taken yet; its length stays.
BREAK_BODY = """
local uid = redis.call('ZRANGE', KEYS[1] .. 'ready', -1, -1)[1]
if not uid or uid == '\\0' then return 0 end
redis.call('SETRANGE', KEYS[1] .. 'body:' .. uid, 0, string.rep('\\255', 16))
return 1
"""


@dataclass
class Actor:
    """A process that is started again whenever it is gone, as Kubernetes would."""

    command: list[str]
    log: Path
    process: "subprocess.Popen[bytes] | None" = None
    ended: bool = False

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(self.command, stdout=output, stderr=output)

    def tend(self) -> None:
        """Restart after a failure; a process that ended by itself is done."""
        if self.process is not None and self.process.poll() is not None and not self.ended:
            if self.process.returncode == 0:
                self.ended = True
            else:
                self.start()

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def end(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@dataclass
class Storm:
    """`blows_s` seconds of blows, at least `least_blows` of them, then calm until the run is over."""

    seed: int
    folder: Path
    blows_s: float
    rows: int
    kinds: Mapping[str, int] = field(default_factory=lambda: KILLS)
    replicated: bool = False
    """A primary and a replica, for fail-overs."""
    hopeless: Sequence[int] = ()
    """Rows whose every try fails."""
    poison: float = 0.0
    """How often a worker hands in what cannot be trained."""
    max_staleness: int = 1
    max_tries: int = 1000
    order: str = "lease"
    epochs: int = 1
    workers: int = 3
    least_blows: int = 5
    blows: Counter[str] = field(default_factory=Counter)
    set_aside: int = 0
    """Groups that were set aside; known after `verify`."""
    _old_learners: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    async def rage(self) -> None:
        """Run it all; raises AssertionError when it does not come to its end. Then call `verify`."""
        self._plan(STORM_LEASE_S)
        chance = random.Random(self.seed)
        settings = REPLICATED if self.replicated else {}
        self.server = EmbeddedServer(free_port(), self.folder / "redis", settings=settings)
        self.replica = EmbeddedServer(free_port(), self.folder / "replica", settings=settings)
        self.proxies = proxies = [Proxy(self.server.port) for _ in range(self.workers + 1)]
        async with AsyncExitStack() as stack:
            for server in (self.server, self.replica) if self.replicated else (self.server,):
                await stack.enter_async_context(server)
            if self.replicated:
                await self._follow(self.replica, self.server)
            for proxy in proxies:
                await stack.enter_async_context(proxy)
            learner = self._actor("learner", "l", proxies[0])
            workers = [self._actor("worker", f"w{i}", proxy) for i, proxy in enumerate(proxies[1:])]
            actors = [learner, *workers]
            try:
                for actor in actors:
                    actor.start()
                until = time.monotonic() + self.blows_s
                while self._goes_on(until):
                    await asyncio.sleep(chance.uniform(0.05, 0.4))
                    await self._blow(chance, actors, proxies)
                    for actor in actors:
                        actor.tend()
                await self._calm(actors)
            finally:
                for actor in actors:
                    actor.end()
            self.verify()

    def _plan(self, lease_s: float) -> None:
        plan = {
            "rows": self.rows,
            "epochs": self.epochs,
            "max_staleness": self.max_staleness,
            "order": self.order,
            "lease_s": lease_s,
            "max_tries": self.max_tries,
            "hopeless": list(self.hopeless),
            "poison": self.poison,
        }
        fresh = self.folder / "plan.new"
        fresh.write_text(json.dumps(plan))
        fresh.replace(self.folder / "plan.json")

    def _goes_on(self, until: float) -> bool:
        """By count, not by the clock alone: a fast machine may be done, a slow one may hardly have begun."""
        few = self.blows.total() < self.least_blows
        return few or (time.monotonic() < until and not (self.folder / "done").exists())

    def _actor(self, role: str, name: str, proxy: Proxy) -> Actor:
        command = [sys.executable, str(ACTORS), role, proxy.url, "chaos", str(self.folder), name]
        return Actor(command, self.folder / f"{name}.log")

    async def _blow(self, chance: random.Random, actors: list[Actor], proxies: list[Proxy]) -> None:
        index = chance.randrange(len(actors))
        kind = chance.choices(list(self.kinds), list(self.kinds.values()))[0]
        self.blows[kind] += 1
        match kind:
            case "kill":
                actors[index].signal(signal.SIGKILL)
                if actors[index].process is not None:
                    await asyncio.to_thread(actors[index].process.wait)  # type: ignore[union-attr]
            case "stop":
                actors[index].signal(signal.SIGSTOP)
                await asyncio.sleep(chance.choice([0.2, 1.0]))
                actors[index].signal(signal.SIGCONT)
            case "cut":
                proxies[index].cut()
            case "cut in mid-reply":
                proxies[index].cut_after(chance.choice([1, 7, 60, 400]))
            case "stall":
                await proxies[index].stall(chance.choice([0.2, 1.0, 3.0]))
            case "freeze server":
                await self._freeze(chance.choice([0.2, 1.0, 3.0]))
            case "broken body":
                async with aioredis.Redis.from_url(self.server.url) as client:
                    await client.eval(BREAK_BODY, 1, "golongrl:{chaos}:")
            case "broken body and kill":
                # While the group is set aside and another takes its place, or about then.
                async with aioredis.Redis.from_url(self.server.url) as client:
                    await client.eval(BREAK_BODY, 1, "golongrl:{chaos}:")
                await asyncio.sleep(chance.choice([0, 0.005, 0.02, 0.05, 0.1]))
                victim = actors[0] if chance.random() < 0.7 else actors[index]
                victim.signal(signal.SIGKILL)
                if victim.process is not None:
                    await asyncio.to_thread(victim.process.wait)
            case "fail-over" | "lost primary":
                await self._fail_over(planned=kind == "fail-over", cut=chance.random() < 0.5)
            case "second learner":
                # As a replacement started too early: the old one is fenced, ends, and this one goes on.
                actors[0].signal(signal.SIGSTOP)
                old = actors[0].process
                actors[0].start()
                await asyncio.sleep(chance.uniform(0.5, 1.5))
                if old is not None:
                    old.send_signal(signal.SIGCONT)
                    self._old_learners.append(old)
            case _:
                await self.server.kill()
                await asyncio.sleep(chance.uniform(0, 0.3))
                await self.server.start()

    async def _freeze(self, seconds: float) -> None:
        assert self.server.process is not None
        self.server.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        self.server.process.send_signal(signal.SIGCONT)

    async def _fail_over(self, *, planned: bool, cut: bool) -> None:
        """The replica becomes the primary: by FAILOVER, or because the primary was killed. Connections follow when they
        are made again; those that stay meet a replica."""
        old, new = self.server, self.replica
        if planned:
            await self._hand_over(old, new)
        else:
            await old.kill()
            async with aioredis.Redis.from_url(new.url) as client:
                await client.execute_command("REPLICAOF", "NO", "ONE")
            await old.start()
        self.server, self.replica = new, old
        for proxy in self.proxies:
            proxy.target = new.port
            if cut or not planned:
                proxy.cut()
        await self._follow(old, new)

    async def _hand_over(self, old: EmbeddedServer, new: EmbeddedServer) -> None:
        """A server gives a FAILOVER up when its replica is not ready for it: ask again."""
        one, other = aioredis.Redis.from_url(old.url), aioredis.Redis.from_url(new.url)
        async with one, other, asyncio.timeout(CALM_S):
            while (await other.info("replication"))["role"] != "master":
                if (await one.info("replication")).get("master_failover_state") == "no-failover":
                    with contextlib.suppress(redis.ResponseError):
                        await one.execute_command("FAILOVER", "TO", "127.0.0.1", str(new.port))
                await asyncio.sleep(0.05)

    async def _follow(self, replica: EmbeddedServer, primary: EmbeddedServer) -> None:
        """Until the replica is in step: before that another fail-over would be refused, or lose data by right."""
        async with asyncio.timeout(CALM_S):
            while True:
                async with aioredis.Redis.from_url(replica.url) as client:
                    if (await client.info("replication"))["role"] == "master":
                        await client.execute_command("REPLICAOF", "127.0.0.1", str(primary.port))
                async with aioredis.Redis.from_url(primary.url) as client:
                    found = await client.info("replication")
                if found["role"] == "master" and found.get("slave0", {}).get("state") == "online":
                    return
                await asyncio.sleep(0.1)

    async def _calm(self, actors: list[Actor]) -> None:
        self._plan(CALM_LEASE_S)
        async with SampleQueue.from_url(self.server.url, "chaos") as queue:
            await set_up(queue, self.folder)
        steps, until = 0, time.monotonic() + CALM_S
        while not (self.folder / "done").exists():
            for actor in actors:
                actor.tend()
            if len(self._journal()) > steps:
                steps, until = len(self._journal()), time.monotonic() + CALM_S
            assert time.monotonic() < until, f"seed {self.seed}: stuck after step {steps}; logs in {self.folder}"
            await asyncio.sleep(0.2)
        for old in self._old_learners:
            # Not in this thread: it may be talking through a proxy that lives in it.
            await asyncio.to_thread(old.wait, CALM_S)

    def _journal(self) -> list[str]:
        path = self.folder / "journal.jsonl"
        return path.read_text().splitlines() if path.exists() else []

    def verify(self) -> None:
        """Every row trained or rejected once, in batches that never changed, none too stale; nothing left over."""
        with redis.Redis.from_url(self.server.url) as client:
            picture = queue_picture.read(client, "chaos")
        queue_picture.check(picture)
        assert not picture.groups, "a lease or group is left over"
        assert set(picture.outcome.values()) <= {"T", "R", "A"}
        assert all(picture.outcome[f"0-{row}"] == "R" for row in self.hopeless), "a hopeless row was not rejected"
        assert not self.hopeless or self.epochs == 1
        batches: dict[int, list[str]] = {}
        for line in self._journal():
            record = json.loads(line)
            uids = batches.setdefault(record["step"], record["uids"])
            assert uids == record["uids"], f"batch {record['step']} changed"
            # Empty where all groups of a batch were set aside.
            lowest = min(record["lowest"], default=record["step"])
            assert record["step"] - 1 - lowest <= self.max_staleness, f"batch {record['step']} is too stale"
        # The run's last batches take what is there.
        for step in sorted(batches)[:-2]:
            assert len(batches[step]) == GROUPS_PER_STEP, f"batch {step} is not whole"
        self.set_aside = sum(mark == "A" for mark in picture.outcome.values())
        trained = Counter(uid for uids in batches.values() for uid in uids)
        assert set(trained.values()) == {1}, "a row was trained twice"
        assert set(trained) == {uid for uid, mark in picture.outcome.items() if mark == "T"}
