"""A stateful model drives the real scripts on a real server: crashes, lost replies, expiries, engine restarts, several
learners and a server that lost what it never confirmed, in any order. The invariants hold after every move, and
whatever has happened, the run can still be brought to its end with every row trained or rejected once."""

import asyncio
import random
import secrets
from collections import Counter
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import pytest
import redis
import redis.asyncio as aioredis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from golongrl.queue import (
    Batch,
    FencedError,
    Lease,
    OutOfOrderError,
    QueueSettings,
    RejectReason,
    SampleQueue,
    Stopped,
    SubmitOutcome,
    Wait,
    WeightsRef,
)
from golongrl.queue.address import Address
from golongrl.queue.connection import Connection, Patience
from support import queue_picture
from support.embedded_server import EmbeddedServer
from support.groups import group_for
from support.redis_server import NO_REDIS, free_port, redis_binary

T = TypeVar("T")
LEASE_S, STALL_S = 10.0, 25.0
pick = st.integers(0, 11)


@dataclass
class Server:
    """One event loop and one client for all examples: connecting a thousand times would be most of the test."""

    url: str
    runner: asyncio.Runner = field(default_factory=asyncio.Runner)
    raw: "redis.Redis[bytes]" = field(init=False)
    client: "aioredis.Redis" = field(init=False)

    def __post_init__(self) -> None:
        self.raw = redis.Redis.from_url(self.url)
        self.client = aioredis.Redis.from_url(self.url)

    def queue(self, run: str, incarnation: str | None = None) -> SampleQueue:
        return SampleQueue(Connection(Address(self.client, "machine"), run, Patience(total_s=5)), run, incarnation)

    def keys(self, run: str) -> list[bytes]:
        return list(self.raw.keys(f"golongrl:{{{run}}}:*"))

    def snapshot(self, run: str) -> dict[bytes, bytes]:
        keys = self.keys(run)
        pipe = self.raw.pipeline(transaction=True)
        for key in keys:
            pipe.dump(key)
        return dict(zip(keys, pipe.execute(), strict=True))

    def restore(self, run: str, snapshot: dict[bytes, bytes]) -> None:
        pipe = self.raw.pipeline(transaction=True)
        pipe.delete(*self.keys(run))
        for key, value in snapshot.items():
            pipe.restore(key, 0, value)
        pipe.execute()


@dataclass
class Worker:
    """A rollout worker and its engine."""

    name: str
    queue: SampleQueue
    version: int = 0
    lineage: str = "l0"
    held: list[Lease] = field(default_factory=list)
    unanswered: str | None = None


@dataclass
class Learner:
    """A learner process: what it knows, which may be out of date."""

    fence: str
    lineage: str
    done: int
    taken: int


# Every move, as often as it stands here: work most of all, or disturbances would meet an empty queue.
MOVES = [
    *["worker_works"] * 7,
    *["learner_works"] * 7,
    *["lease", "submit"] * 4,
    *["engine_adopts", "time_passes", "renew", "learner_checkpoints", "learner_takes", "learner_trains"] * 2,
    *["remember", "server_loses_its_last_second", "reject_or_release", "worker_crashes", "engine_restarts"],
    *["ghost_acts"] * 3,
    *[
        "learner_attaches",
        "learner_asks",
        "learner_sets_aside",
        "learner_sets_aside",
        "person_decides",
        "person_decides",
    ],
]


class QueueMachine(RuleBasedStateMachine):
    server: Server
    seen: Counter[str]

    def saw(self, what: str) -> None:
        self.seen[what] += 1

    def run_(self, call: Coroutine[Any, Any, T]) -> T:
        return self.server.runner.run(call)

    @initialize(
        size=st.sampled_from([2, 1, 3]),
        eta=st.sampled_from([1, 0, 2, 4]),
        order=st.sampled_from(["lease", "ready"]),
        minimum=st.sampled_from([1, 1, 2]),
        rows=st.sampled_from([24, 12, 5, 1]),
        epochs=st.integers(1, 2),
        max_bytes=st.sampled_from([1 << 30, 1500, 300]),
        max_tries=st.sampled_from([100, 1, 2]),
    )
    def begin(
        self, size: int, eta: int, order: Any, minimum: int, rows: int, epochs: int, max_bytes: int, max_tries: int
    ) -> None:
        self.name = f"machine-{secrets.token_hex(4)}"
        self.eta = eta
        self.learner_queue = self.server.queue(self.name)
        self.promises = QueueSettings(
            groups_per_step=size,
            max_staleness=eta,
            order=order,
            min_prompts_per_task=minimum,
            max_bytes=max_bytes,
            lease_s=LEASE_S,
            stall_s=STALL_S,
            max_tries=max_tries,
            max_gen_batches=1000,
            group_bytes=0,
            manual_clock=True,
        )
        self.rows = [np.arange(rows, dtype=np.int32)] * epochs
        self.tasks = [("a", "b", "a", "c")[row % 4] for row in range(rows)]
        self.run_(self.learner_queue.setup(self.promises, self.rows, self.tasks))
        self.workers = [Worker(f"w{index}", self.server.queue(self.name, f"w{index}-0")) for index in range(3)]
        self.born = 0
        self.ghosts: list[tuple[str, Lease]] = []
        self.learners: list[Learner] = []
        self.checkpoint = 0
        self.batches: dict[int, list[str]] = {}
        # What a batch keeps while a group that was set aside is being replaced.
        self.kept: dict[int, list[str]] = {}
        self.version = 0
        self.snapshots: list[dict[bytes, bytes]] = []
        self.confirmed()
        self.learner_attaches(9)

    @rule(kind=st.sampled_from(MOVES), a=pick, b=pick, c=pick)
    def move(self, kind: str, a: int, b: int, c: int) -> None:
        """One rule for all moves: their weights decide how deep a run gets, and no kind is ever left out of one."""
        self.saw(kind)
        getattr(self, kind)(a, b, c)

    # -- what survives a crash of the server --

    def confirmed(self) -> None:
        """The caller was told that all up to here is on disk: no rollback goes behind it."""
        self.snapshots = [self.server.snapshot(self.name)]

    def remember(self, *_: int) -> None:
        self.snapshots.append(self.server.snapshot(self.name))

    def server_loses_its_last_second(self, which: int, *_: int) -> None:
        chosen = which % len(self.snapshots)
        self.server.restore(self.name, self.snapshots[chosen])
        self.snapshots = self.snapshots[: chosen + 1]

    def time_passes(self, how: int, *_: int) -> None:
        self.run_(self.learner_queue.advance((1.0, LEASE_S / 2, LEASE_S, STALL_S)[how % 4]))

    # -- workers --

    def lease(self, which: int, luck: int, *_: int) -> None:
        reply_lost = luck < 3
        worker = self.workers[which % 3]
        request = worker.unanswered or secrets.token_hex(8)
        answer = self.run_(worker.queue.lease(worker.name, worker.version, request_id=request, lineage=worker.lineage))
        if reply_lost and isinstance(answer, Lease):
            again = worker.queue.lease(worker.name, worker.version, request_id=request, lineage=worker.lineage)
            assert self.run_(again) == answer
        worker.unanswered = request if reply_lost else None
        if isinstance(answer, Lease) and not reply_lost:
            held = [lease.token for lease in worker.held]
            assert answer.token not in held
            worker.held.append(answer)

    def worker_works(self, which: int, groups: int, luck: int) -> None:
        """Healthy work, so that runs get deep: most moves below only disturb."""
        worker = self.workers[which % 3]
        if luck > 3:
            self.adopt(worker)
        for _ in range(1 + groups % 3):
            answer = self.run_(worker.queue.lease(worker.name, worker.version, lineage=worker.lineage))
            if not isinstance(answer, Lease):
                self.saw(f"refused: {answer.reason}")
                return
            self.saw(f"submitted: {self.run_(worker.queue.submit(answer, group_for(answer)))}")

    def learner_works(self, steps: int, *_: int) -> None:
        if not self.learners:
            return
        learner = self.learners[-1]
        for _ in range(1 + steps % 3):
            self.learner_takes(len(self.learners) - 1, 9, 0)
            if learner in self.learners:
                self.learner_trains(len(self.learners) - 1, 9)

    def renew(self, which: int, progress: int, *_: int) -> None:
        worker = self.workers[which % 3]
        kept = self.run_(worker.queue.renew(worker.name, {lease.token: progress for lease in worker.held}))
        worker.held = [lease for lease in worker.held if kept[lease.token]]

    def submit(self, which: int, lease: int, luck: int) -> None:
        restarted, reply_lost, invalid = luck % 4 == 0, luck > 8, luck == 5
        worker = self.workers[which % 3]
        if worker.held:
            chosen = worker.held[lease % len(worker.held)]
            version = max(0, chosen.engine_version - 1) if restarted else None
            group = group_for(chosen, version)
            if invalid:
                group = replace(group, responses=(replace(group.responses[0], logprobs=np.ones(4, np.float32)),))
            outcome = self.run_(worker.queue.submit(chosen, group))
            self.saw(f"submitted: {outcome}")
            if invalid:
                assert outcome in (SubmitOutcome.INVALID, SubmitOutcome.STALE, SubmitOutcome.DUPLICATE)
            if restarted and chosen.engine_version > 0:
                assert outcome is not SubmitOutcome.ACCEPTED
            if reply_lost:
                again = self.run_(worker.queue.submit(chosen, group))
                self.saw(f"submitted: {again}")
                known = outcome in (SubmitOutcome.ACCEPTED, SubmitOutcome.DUPLICATE)
                assert again is (SubmitOutcome.DUPLICATE if known else SubmitOutcome.STALE)
                self.ghosts.append((worker.name, chosen))
            worker.held.remove(chosen)

    def reject_or_release(self, which: int, lease: int, luck: int) -> None:
        reject = luck < 6
        worker = self.workers[which % 3]
        if worker.held:
            chosen = worker.held.pop(lease % len(worker.held))
            if reject:
                self.run_(worker.queue.reject(chosen, RejectReason.ALL_EQUAL))
            else:
                self.run_(worker.queue.release(chosen, "shutdown"))
            self.ghosts.append((worker.name, chosen))

    def worker_crashes(self, which: int, *_: int) -> None:
        worker = self.workers[which % 3]
        self.born += 1
        self.ghosts += [(worker.name, lease) for lease in worker.held]
        fresh = self.server.queue(self.name, f"{worker.name}-{self.born}")
        self.workers[which % 3] = Worker(worker.name, fresh)

    def engine_restarts(self, which: int, *_: int) -> None:
        worker = self.workers[which % 3]
        worker.version, worker.lineage = 0, "l0"

    def engine_adopts(self, which: int, *_: int) -> None:
        self.adopt(self.workers[which % 3])

    def adopt(self, worker: Worker) -> None:
        weights = self.run_(worker.queue.weights())
        if weights and weights.version >= worker.version:
            worker.version, worker.lineage = weights.version, weights.lineage

    def ghost_acts(self, which: int, how: int, *_: int) -> None:
        """A delayed or repeated message of a lease that its owner thinks is over."""
        if not self.ghosts:
            return
        name, lease = self.ghosts[which % len(self.ghosts)]
        queue, state = self.workers[0].queue, self.held_state(lease)
        match how % 4:
            case 0:
                outcome = self.run_(queue.submit(lease, group_for(lease)))
                self.saw(f"submitted: {outcome}")
                expected = {"leased": SubmitOutcome.ACCEPTED, None: SubmitOutcome.STALE}
                assert outcome is expected.get(state, SubmitOutcome.DUPLICATE)
            case 1:
                before = self.outcome(lease)
                rejected = self.run_(queue.reject(lease, RejectReason.OVERLONG))
                assert rejected == (state == "leased" or before == "R")
            case 2:
                assert self.run_(queue.release(lease, "late")) == (state == "leased")
            case _:
                kept = self.run_(queue.renew(name, {lease.token: 9}))[lease.token]
                assert kept <= (state == "leased")

    def held_state(self, lease: Lease) -> str | None:
        """Where the lease's group is, if the lease's token still is its own; read from the keys themselves."""
        group = queue_picture.read(self.server.raw, self.name).groups.get(lease.uid)
        return group["state"] if group and group["token"] == lease.token else None

    def outcome(self, lease: Lease) -> str:
        return queue_picture.read(self.server.raw, self.name).outcome[lease.uid]

    # -- learners --

    def learner_attaches(self, luck: int, *_: int) -> None:
        new_lineage = luck < 4
        weights = self.run_(self.learner_queue.weights())
        attached = self.run_(self.learner_queue.attach(self.checkpoint))
        assert attached.version >= self.version
        self.version = attached.version
        lineage = f"l{secrets.token_hex(3)}" if new_lineage else weights.lineage if weights else "l0"
        self.learners = [
            *self.learners[-1:],
            Learner(attached.token, lineage, self.checkpoint, self.checkpoint),
        ]
        self.confirmed()

    def learner_asks(self, which: int, *_: int) -> None:
        """Whether it was replaced."""
        learner = self.learners[which % len(self.learners)]
        before = queue_picture.read(self.server.raw, self.name)
        try:
            self.run_(self.learner_queue.ensure_attached(learner.fence))
        except FencedError:
            assert learner is not self.learners[-1]
            self.learners.remove(learner)
            self.saw("replaced")
        else:
            assert learner is self.learners[-1]
        after = queue_picture.read(self.server.raw, self.name)
        before.state["touched"] = after.state["touched"]
        assert after == before, "a question changed something"

    def learner_takes(self, which: int, luck: int, prefetch: int) -> None:
        if not self.learners:
            return
        reply_lost = luck < 4
        learner = self.learners[which % len(self.learners)]
        if learner.taken - learner.done > int(prefetch > 6):
            return
        step = learner.taken + 1
        if reply_lost:
            # The script ran, nobody waited for the disk, nobody was told.
            self.raw_call("take", learner, step)
            return
        try:
            answer = self.run_(self.learner_queue.take(learner.fence, step))
        except FencedError:
            self.learners.remove(learner)
            return
        self.saw(f"take: {answer.reason if isinstance(answer, Wait | Stopped) else 'batch'}")
        if isinstance(answer, Batch):
            self.took(answer)
            learner.taken = step
            self.confirmed()
        elif isinstance(answer, Wait) and answer.checkpoint_now:
            self.learner_checkpoints(which, 9)

    def took(self, batch: Batch) -> None:
        uids = [group.uid for group in batch.groups]
        assert self.batches.setdefault(batch.step, uids) == uids, f"batch {batch.step} changed"
        kept = self.kept.pop(batch.step, [])
        assert uids[: len(kept)] == kept, f"batch {batch.step} lost more than what was set aside"
        if len(uids) > len(kept) > 0:
            self.saw("replaced a group")

    def raw_call(self, name: str, learner: Learner, step: int) -> None:
        queue = self.server.queue(self.name)
        self.run_(queue._connection.run(name, {"fence": learner.fence, "step": step}))

    def learner_trains(self, which: int, luck: int, *_: int) -> None:
        if not self.learners:
            return
        reply_lost = luck < 4
        learner = self.learners[which % len(self.learners)]
        if learner.taken == learner.done:
            return
        step = learner.done + 1
        try:
            if step > self.version or self.version == step:
                self.announce(learner, step)
            if reply_lost:
                self.raw_call("finish", learner, step)
                return
            self.run_(self.learner_queue.finish(learner.fence, step))
        except FencedError:
            self.learners.remove(learner)
            return
        self.version = max(self.version, step)
        learner.done = step
        self.confirmed()

    def learner_sets_aside(self, which: int, place: int, repeats: int) -> None:
        """A group of the batch in hand cannot be trained."""
        if not self.learners:
            return
        learner = self.learners[which % len(self.learners)]
        if learner.taken == learner.done:
            self.learner_takes(which, 9, 0)
        # With the next batch taken ahead, or without.
        step = learner.done + 1 if repeats > 5 else learner.taken
        uids = self.batches.get(step, [])
        if learner.taken == learner.done or not uids:
            return
        broken = {uids[(place + more) % len(uids)] for more in range(1 + repeats % 3)}
        try:
            for uid in [*broken, *list(broken)[: repeats % 2]]:
                self.run_(self.learner_queue.set_aside(learner.fence, step, uid, "broken"))
        except FencedError:
            self.learners.remove(learner)
            return
        except OutOfOrderError:
            assert step <= queue_picture.read(self.server.raw, self.name).state["v"]
            return
        del self.batches[step]
        self.kept[step] = [uid for uid in uids if uid not in broken]
        for other in self.learners:
            other.taken = max(other.done, min(other.taken, step - 1))
        self.saw("set aside")
        self.confirmed()

    def person_decides(self, which: int, retry: int, *_: int) -> None:
        found = self.run_(self.learner_queue.set_aside_groups())
        if not found:
            return
        uid = found[which % len(found)].uid
        decide = self.learner_queue.retry_set_aside if retry % 2 else self.learner_queue.drop_set_aside
        assert self.run_(decide(uid))
        assert not self.run_(decide(uid))
        self.saw("retried" if retry % 2 else "dropped")
        self.confirmed()

    def announce(self, learner: Learner, version: int) -> None:
        before = self.run_(self.learner_queue.weights())
        wanted = WeightsRef(version, "path", learner.lineage, "sum")
        now = self.run_(self.learner_queue.announce(learner.fence, wanted))
        assert before is None or now.version >= before.version
        if self.eta == 0 and before and now == wanted and before.lineage != now.lineage:
            # Batches from here on are dissolved; a prefetched one is taken again.
            self.batches = {step: uids for step, uids in self.batches.items() if step <= version}
            self.kept = {step: uids for step, uids in self.kept.items() if step <= version}
            for other in self.learners:
                other.taken = max(other.done, min(other.taken, version))
        self.confirmed()

    def learner_checkpoints(self, which: int, luck: int, *_: int) -> None:
        if not self.learners:
            return
        commit = luck > 3
        learner = self.learners[which % len(self.learners)]
        self.checkpoint = max(self.checkpoint, learner.done)
        if commit:
            try:
                self.run_(self.learner_queue.commit(learner.fence, learner.done))
            except FencedError:
                self.learners.remove(learner)
                return
            self.confirmed()

    # -- what must hold --

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "name"):
            self.check()

    def check(self) -> None:
        picture = queue_picture.read(self.server.raw, self.name)
        queue_picture.check(picture)
        assert picture.state["v"] >= self.version, "v decreased"
        for step, uids in self.batches.items():
            if step > picture.state["committed"]:
                assert picture.batches[step] == uids
            else:
                assert all(picture.outcome[uid] == "T" for uid in uids)
        trained = [uid for uids in self.batches.values() for uid in uids]
        assert len(set(trained)) == len(trained), "a row was trained twice"

    def teardown(self) -> None:
        if hasattr(self, "name"):
            try:
                self.bring_to_its_end()
            finally:
                self.server.raw.delete(*self.server.keys(self.name))

    def bring_to_its_end(self) -> None:
        """A healthy learner and a healthy worker finish any run, however it was left."""
        self.learner_attaches(9)
        learner = self.learners[-1]
        worker = Worker("healthy", self.server.queue(self.name))
        for _ in range(200):
            self.adopt(worker)
            for _ in range(50):
                answer = self.run_(worker.queue.lease("healthy", worker.version, lineage=worker.lineage))
                if not isinstance(answer, Lease):
                    break
                self.run_(worker.queue.submit(answer, group_for(answer)))
            batch = self.run_(self.learner_queue.take(learner.fence, learner.taken + 1))
            match batch:
                case Batch():
                    self.took(batch)
                    learner.taken = batch.step
                    if batch.step >= self.version:
                        self.announce(learner, batch.step)
                    self.run_(self.learner_queue.finish(learner.fence, batch.step))
                    learner.done = batch.step
                    self.version = max(self.version, batch.step)
                case Wait(checkpoint_now=True):
                    self.checkpoint = learner.done
                    self.run_(self.learner_queue.commit(learner.fence, learner.done))
                case Wait():
                    # Somebody else's lease: it expires.
                    self.run_(self.learner_queue.advance(LEASE_S))
                case Stopped():
                    break
            self.check()
        else:
            pytest.fail(f"the run does not end: {batch}")
        assert batch.reason == "exhausted"
        self.run_(self.learner_queue.commit(learner.fence, learner.done))
        picture = queue_picture.read(self.server.raw, self.name)
        assert {uid for uid, mark in picture.outcome.items() if mark == "T"} == {
            uid for uids in self.batches.values() for uid in uids
        }
        assert set(picture.outcome.values()) <= {"T", "R", "A"}


@pytest.fixture(scope="module", params=["valkey", pytest.param("redis", marks=pytest.mark.full)])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Without an append-only file: the machine itself plays what a disk keeps and loses."""
    binary = redis_binary() if request.param == "redis" else None
    if request.param == "redis" and binary is None:
        pytest.skip(NO_REDIS)
    process = EmbeddedServer(free_port(), tmp_path_factory.mktemp("machine"), server=binary, appendfsync=None)
    asyncio.run(process.start())
    one = Server(process.url)
    yield one
    one.runner.run(one.client.aclose())
    one.runner.close()
    asyncio.run(process.stop())


def machine_on(server: Server, seen: Counter[str]) -> type[QueueMachine]:
    return type("Machine", (QueueMachine,), {"server": server, "seen": seen})


def explore(server: Server, examples: int, steps: int) -> None:
    """Hypothesis searches, and shrinks what it finds."""
    run_state_machine_as_test(
        machine_on(server, Counter()),
        settings=settings(max_examples=examples, stateful_step_count=steps, suppress_health_check=list(HealthCheck)),
    )


def walk(server: Server, seed: int, steps: int, seen: Counter[str]) -> None:
    """One long evenly drawn walk, deeper than a search gets."""
    chance = random.Random(seed)
    machine = machine_on(server, seen)()
    machine.begin(
        size=chance.choice([1, 2, 3]),
        eta=chance.choice([0, 1, 2, 4]),
        order=chance.choice(["lease", "ready", "ready"]),
        minimum=chance.choice([1, 2]),
        rows=chance.randint(10, 40),
        epochs=chance.choice([1, 2]),
        max_bytes=chance.choice([300, 1500, 1 << 30, 1 << 30]),
        max_tries=chance.choice([2, 100, 100, 100]),
    )
    for _ in range(steps):
        machine.move(chance.choice(MOVES), chance.randrange(12), chance.randrange(12), chance.randrange(12))
        machine.check()
    machine.teardown()


# Without these the walks would prove little.
INTERESTING = {
    *MOVES,
    *(f"refused: {reason}" for reason in ("full", "behind", "no_rows", "bytes", "lineage")),
    *(f"submitted: {outcome}" for outcome in SubmitOutcome),
    *(f"take: {reason}" for reason in ("batch", "groups", "tasks", "budget", "exhausted")),
    "replaced",
    "set aside",
    "replaced a group",
    "retried",
    "dropped",
}


def test_invariants_hold_whatever_happens(server: Server) -> None:
    explore(server, examples=25, steps=30)


def test_invariants_hold_on_long_walks(server: Server) -> None:
    seen = Counter[str]()
    for seed in range(25):
        walk(server, seed, 100, seen)
    assert set(seen) >= INTERESTING


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_invariants_hold_whatever_happens_for_long(server: Server) -> None:
    explore(server, examples=1000, steps=80)


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(1000, 1010))
def test_invariants_hold_on_many_walks(server: Server, seed: int) -> None:
    seen = Counter[str]()
    for part in range(100):
        walk(server, seed * 1000 + part, 120, seen)
    assert set(seen) >= INTERESTING
