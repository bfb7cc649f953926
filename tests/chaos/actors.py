"""The processes that chaos kills: a worker with instant generation and a learner that remembers what it trained.

Run as `python actors.py worker|learner URL RUN FOLDER NAME`. The learner's journal (one line a trained batch, written
before `finish`, as weights would be) and its checkpoint file survive it, as a disk would.
"""

import asyncio
import json
import os
import random
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from golongrl.queue import (
    Batch,
    FencedError,
    Group,
    Lease,
    NotSetUpError,
    Patience,
    QueueError,
    QueueSettings,
    RejectReason,
    Response,
    SampleQueue,
    Stopped,
    SubmitOutcome,
    VersionSpan,
    Wait,
    WeightsRef,
)

# Short, so that a process that waits for a killed server is itself worth killing.
PATIENCE = Patience(total_s=30, longest_pause_s=0.2)


VOCABULARY = 8
GROUPS_PER_STEP = 4


def group(lease: Lease, newest: int) -> Group:
    """Two responses; the second is finished by a newer policy, as in-place adoption would have it."""
    spans = (VersionSpan(lease.engine_version, 0, 8),)
    if newest > lease.engine_version:
        spans = (VersionSpan(lease.engine_version, 0, 4), VersionSpan(newest, 4, 8))
    ids, logprobs = np.arange(8, dtype=np.int32), np.zeros(8, np.float32)
    responses = tuple(Response(ids, logprobs, spans, "stop", reward) for reward in (0.0, 1.0))
    return Group(
        lease.uid, lease.row, lease.epoch, "T1", "F1", "F1", "qa", ids, responses, lease.worker, lease.engine_version
    )


def poisoned(lease: Lease) -> Group:
    """What a broken engine makes: ids outside of the vocabulary, log-probs that are none, no response at all."""
    sound = group(lease, lease.engine_version)
    first = sound.responses[0]
    wrong = random.choice(
        [
            {"ids": np.full(8, VOCABULARY, np.int32)},
            {"ids": np.full(8, -7, np.int32)},
            {"logprobs": np.full(8, np.nan, np.float32)},
            {"logprobs": np.ones(8, np.float32)},
            {"reward": float("inf")},
        ]
    )
    return replace(sound, responses=(replace(first, **wrong), *sound.responses[1:]))


async def worker(url: str, run: str, folder: Path, name: str) -> None:
    """Lease, pretend, submit, until the run stops."""
    plan = json.loads((folder / "plan.json").read_text())
    hopeless, poison = set(plan["hopeless"]), plan["poison"]
    async with SampleQueue.from_url(url, run, patience=PATIENCE) as queue:
        version = 0
        while True:
            try:
                weights = await queue.weights()
                version = max(version, weights.version if weights else 0)
                lease = await queue.lease(name, version, lineage=weights.lineage if weights else "")
                if isinstance(lease, Stopped):
                    return
                if not isinstance(lease, Lease):
                    await asyncio.sleep(0.02)
                    continue
                await asyncio.sleep(random.expovariate(50))
                await queue.renew(name, {lease.token: 1}, {lease.token: "generating"})
                weights = await queue.weights()
                chance = random.random()
                if lease.row in hopeless:
                    await queue.release(lease, "engine_failed", failed=True)
                elif chance < poison:
                    assert await queue.submit(lease, poisoned(lease)) in (SubmitOutcome.INVALID, SubmitOutcome.STALE)
                elif chance < poison + 0.05:
                    await queue.reject(lease, RejectReason.ALL_EQUAL)
                elif chance < poison + 0.1:
                    await queue.release(lease, "whim")
                else:
                    await queue.submit(lease, group(lease, weights.version if weights else 0))
            except NotSetUpError:
                await asyncio.sleep(0.05)


async def set_up(queue: SampleQueue, folder: Path) -> None:
    """As plan.json has it: first with leases short enough to expire while their worker is stopped."""
    plan = json.loads((folder / "plan.json").read_text())
    order = [np.random.default_rng(epoch).permutation(plan["rows"]).astype(np.int32) for epoch in range(plan["epochs"])]
    settings = QueueSettings(
        groups_per_step=GROUPS_PER_STEP,
        max_staleness=plan["max_staleness"],
        order=plan["order"],
        min_prompts_per_task=2,
        max_bytes=1 << 30,
        lease_s=plan["lease_s"],
        stall_s=2 * plan["lease_s"],
        max_tries=plan["max_tries"],
        max_gen_batches=32,
        group_bytes=0,
        vocabulary=VOCABULARY,
    )
    await queue.setup(settings, order, [("a", "b", "c")[row % 3] for row in range(plan["rows"])])


async def learner(url: str, run: str, folder: Path) -> None:
    """Attach at the last checkpoint, then take, journal, announce, finish; a checkpoint every third step."""
    marker = folder / "checkpoint"
    async with SampleQueue.from_url(url, run, patience=PATIENCE) as queue:
        await set_up(queue, folder)
        checkpoint = int(marker.read_text()) if marker.exists() else 0
        attached = await queue.attach(checkpoint)
        step = checkpoint + 1
        while True:
            match await queue.take(attached.token, step):
                case Batch(groups=groups):
                    record = {
                        "step": step,
                        "uids": [group.uid for group in groups],
                        "lowest": [group.lowest_version for group in groups],
                    }
                    with (folder / "journal.jsonl").open("a") as journal:
                        journal.write(json.dumps(record) + "\n")
                    if step > attached.version:
                        await queue.announce(attached.token, WeightsRef(step, "p", "l", "c"))
                    await queue.finish(attached.token, step)
                    if step % 3 == 0:
                        await save_and_commit(queue, attached.token, step, marker)
                    step += 1
                case Wait(checkpoint_now=True):
                    await save_and_commit(queue, attached.token, step - 1, marker)
                case Wait():
                    await asyncio.sleep(0.02)
                case Stopped(reason="exhausted"):
                    await save_and_commit(queue, attached.token, step - 1, marker)
                    (folder / "done").touch()
                    return
                case Stopped(detail=detail):
                    raise SystemExit(f"stopped: {detail}")


async def save_and_commit(queue: SampleQueue, fence: str, step: int, marker: Path) -> None:
    """The checkpoint is durable (renamed into place) before the commit."""
    fresh = marker.with_suffix(f".{os.getpid()}")
    fresh.write_text(str(step))
    fresh.replace(marker)
    await queue.commit(fence, step)


def main() -> None:
    """Ends with 0 when the run is over or this process was replaced; chaos starts it again otherwise."""
    role, url, run, folder, name = sys.argv[1:]
    try:
        asyncio.run(worker(url, run, Path(folder), name) if role == "worker" else learner(url, run, Path(folder)))
    except FencedError:
        raise SystemExit(0) from None
    except QueueError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
