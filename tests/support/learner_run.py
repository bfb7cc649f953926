"""A learner as its own process against a real queue, fed with made-up groups: what tests of its loop run on."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from golongrl.data.prepared import Prepared, PreparedRow, write_prepared
from golongrl.queue import (
    Group,
    Lease,
    Response,
    SampleQueue,
    ValidationResult,
    VersionSpan,
    WeightsRef,
)
from golongrl.recipe import Recipe, dump, load
from golongrl.rollout.groups.assemble import group_of
from support.embedded_server import EmbeddedServer
from support.processes import below
from support.redis_server import free_port

TASKS = ("EM", "F1_Score", "NDCG")
HELD_OUT = 6
FIRST_ROWS = 2


def small_recipe(model: Path, *overrides: str) -> Recipe:
    """Nine prompts of three tasks an epoch, three groups of four responses a step, four steps."""
    return load(
        "quickstart",
        [
            f"model.path={model}",
            "data.epochs=8",
            "rollout.n=4",
            "rollout.max_response_tokens=12",
            "queue.groups_per_step=3",
            "learner.steps=4",
            "learner.lr=0.003",
            "learner.lr_warmup_steps=0",
            "learner.checkpoint_every=2",
            *overrides,
        ],
    )


def write_data(folder: Path, rows: int = 9) -> Path:
    """A prepared dataset of `rows` made-up prompts."""
    rng = np.random.default_rng(0)
    write_prepared(
        (
            PreparedRow(
                index=i,
                prompt_ids=rng.integers(3, 500, size=int(rng.integers(4, 20))).astype(np.int32),
                task=f"T{i % len(TASKS) + 1}",
                metric=TASKS[i % len(TASKS)],
                task_key=TASKS[i % len(TASKS)],
                data_source="made-up",
                reward_mode=TASKS[i % len(TASKS)],
                ground_truth={},
                extra_info={},
                ability="none",
            )
            for i in range(rows)
        ),
        folder,
    )
    return folder


def made_up_group(data: Prepared, lease: Lease, n: int, longest: int) -> Group:
    """Responses drawn from the lease's uid alone: the same row of the same epoch always answers alike."""
    row = data.row(lease.row)
    rng = np.random.default_rng([lease.epoch, lease.row])
    responses = []
    for index in range(n):
        ids = rng.integers(3, 500, size=int(rng.integers(1, longest + 1))).astype(np.int32)
        unscored = index == n - 1 and lease.row % 4 == 0
        responses.append(
            Response(
                ids=ids,
                logprobs=rng.normal(-6.2, 0.3, size=len(ids)).astype(np.float32),
                version_spans=(VersionSpan(lease.engine_version, 0, len(ids)),),
                finish_reason="stop",
                reward=None if unscored else float(rng.integers(0, 5)) / 4,
                status="unscored" if unscored else "scored",
            )
        )
    return group_of(lease, row, responses, {"generate": 0.1})


@dataclass
class LearnerRun:
    """One run's folders, server and learner process."""

    root: Path
    recipe: Recipe
    server: EmbeddedServer
    name: str = "test"
    process: subprocess.Popen[bytes] | None = None
    seen: list[int] = field(default_factory=list)
    validated: list[tuple[int, int]] = field(default_factory=list)
    """(version, row) of every validation row the feeder answered."""
    validates: asyncio.Event = field(default_factory=asyncio.Event)
    """While cleared, the feeder answers only `FIRST_ROWS` rows of a round after version 0."""
    feeds_below: int | None = None
    """The feeder leases nothing at this version or above: where nothing may be stale, no step is trained from it."""

    @property
    def log(self) -> str:
        return (self.root / "learner.log").read_text(errors="replace")

    @property
    def records(self) -> list[dict[str, Any]]:
        path = self.root / "metrics.jsonl"
        text = path.read_text() if path.exists() else ""
        # A last line without its end is being written.
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def queue(self) -> SampleQueue:
        return SampleQueue.from_url(self.server.url, self.name)

    def checksum(self, version: int) -> str:
        """sha256 of the weights of a published version."""
        manifest = json.loads((self.root / "weights" / f"v{version}" / "manifest.json").read_text())
        return str([entry["sha256"] for name, entry in manifest["files"].items() if name.endswith(".safetensors")])

    def start(self) -> None:
        """Start `golongrl learner` in a session of its own."""
        (self.root / "recipe.yaml").write_text(dump(self.recipe))
        command = [
            sys.executable, "-m", "golongrl", "learner", "--recipe", str(self.root / "recipe.yaml"), "--run", self.name,
            "--redis-url", self.server.url, "--data", str(self.root / "data"),
            "--weights", str(self.root / "weights"), "--out", str(self.root),
        ]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1"}
        with (self.root / "learner.log").open("ab") as output:
            self.process = subprocess.Popen(
                command, stdout=output, stderr=output, env=environment, start_new_session=True
            )

    async def ended(self, timeout_s: float = 600) -> int:
        """Wait for the learner's exit code."""
        assert self.process is not None
        return await asyncio.to_thread(self.process.wait, timeout_s)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send the driver a signal; its ranks and Ray must follow by themselves."""
        assert self.process is not None
        self.process.send_signal(number)

    def family(self, *names: str) -> list[psutil.Process]:
        """The processes below the learner, Ray's included, that have one of the names in their command line."""
        assert self.process is not None
        found = below(self.process.pid)
        return [one.process for one in found if any(name in one.command for name in names)]

    def ranks(self) -> list[psutil.Process]:
        """The processes of the ranks."""
        found = self.family("LearnerRank")
        assert len(found) >= self.recipe.learner.ranks
        return found

    def kill_ranks(self) -> None:
        """SIGKILL to every rank."""
        for rank in self.ranks():
            rank.kill()

    async def until(self, condition: Any, timeout_s: float = 600) -> None:
        """Wait until `condition()`; the learner's death ends the wait."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                assert self.process is not None
                assert self.process.poll() is None, self.log[-4000:]
                await asyncio.sleep(0.05)

    async def feed(self) -> None:
        """Be a rollout worker and its engine: lease, make up, submit, take every announced version at once."""
        data = Prepared.open(self.root / "data" / "train")
        async with self.queue() as queue:
            while True:
                with contextlib.suppress(Exception):
                    weights = await queue.weights()
                    if weights is not None:
                        self.seen.append(weights.version)
                        await self._validate(queue, weights)
                        if self.feeds_below is not None and weights.version >= self.feeds_below:
                            await asyncio.sleep(0.02)
                            continue
                        lease = await queue.lease("made-up", weights.version, lineage=weights.lineage)
                        if isinstance(lease, Lease):
                            recipe = self.recipe
                            group = made_up_group(data, lease, recipe.rollout.n, recipe.rollout.max_response_tokens)
                            await queue.submit(lease, group)
                            continue
                await asyncio.sleep(0.02)

    async def _validate(self, queue: SampleQueue, weights: WeightsRef) -> None:
        answered = sum(version == weights.version for version, _ in self.validated)
        if weights.version and not self.validates.is_set() and answered >= FIRST_ROWS:
            return
        for item in await queue.validation.lease(weights.version, weights.lineage, 1):
            reward = None if item.row == 0 else (item.row + weights.version) / 20
            reason = "made up so" if reward is None else ""
            result = ValidationResult(item.row, reward, reason, f"answer {weights.version}", 3, "stop", "made-up")
            assert await queue.validation.submit(item, result)
            self.validated.append((weights.version, item.row))


@asynccontextmanager
async def learner_run(
    root: Path, recipe: Recipe, *, start: bool = True, feed: bool = True, redis: Path | None = None
) -> AsyncIterator[LearnerRun]:
    """A server (its files in `redis`, else in the run's folder), (`feed`) a feeder, and (`start`) a learner that is
    started; all are ended with the context."""
    root.mkdir(parents=True, exist_ok=True)
    write_data(root / "data" / "train")
    write_data(root / "data" / "validation", HELD_OUT)
    async with EmbeddedServer(free_port(), redis or root / "redis") as server:
        run = LearnerRun(root, recipe, server)
        feeder = asyncio.create_task(run.feed() if feed else asyncio.sleep(0))
        if start:
            run.start()
        try:
            yield run
        finally:
            feeder.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await feeder
            if run.process is not None and run.process.poll() is None:
                os.killpg(run.process.pid, signal.SIGKILL)
                run.process.wait()
