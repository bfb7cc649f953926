"""Small groups as a rollout worker would hand them in."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from golongrl.queue import Batch, Group, Lease, QueueSettings, Response, SampleQueue, VersionSpan
from golongrl.recipe.models import Queue
from golongrl.routes.reference import RoutesReference, object_name


def queue_settings(groups_per_step: int = 1, max_staleness: int = 1, **changes: Any) -> QueueSettings:
    """A small queue's settings, with the recipe's defaults where a test does not care."""
    defaults = {**Queue().model_dump(), "max_gen_batches": 32, "group_bytes": 0}
    return QueueSettings(**{**defaults, "groups_per_step": groups_per_step, "max_staleness": max_staleness, **changes})


def response(tokens: int, version: int, reward: float | None = 1.0) -> Response:
    """`tokens` tokens, all sampled by `version`; reward None is unscored."""
    return Response(
        ids=np.arange(tokens, dtype=np.int32),
        logprobs=np.linspace(-2, 0, tokens, dtype=np.float32),
        version_spans=(VersionSpan(version, 0, tokens),) if tokens else (),
        finish_reason="stop",
        reward=reward,
        status="unscored" if reward is None else "scored",
        reason="deadline" if reward is None else "",
    )


def group_for(
    lease: Lease,
    version: int | None = None,
    *,
    tokens: int = 4,
    rewards: Sequence[float | None] = (0.0, 1.0),
    routes_bytes: int = 0,
) -> Group:
    """A group for `lease`, sampled by `version` (default: the lease's engine version), with so many bytes of routes."""
    made_by = lease.engine_version if version is None else version
    return Group(
        uid=lease.uid,
        row=lease.row,
        epoch=lease.epoch,
        task="T1",
        metric="F1",
        task_key=lease.task_key or "F1",
        reward_mode="qa",
        prompt_ids=np.arange(8, dtype=np.int32),
        responses=tuple(response(tokens, made_by, reward) for reward in rewards),
        worker=lease.worker,
        engine_version=lease.engine_version,
        timings={"generate": 0.5},
        routes=RoutesReference(object_name(lease.token), "ab" * 32, routes_bytes) if routes_bytes else None,
    )


async def one_group_batch(queue: SampleQueue, fence: str, step: int, *, again: bool = False) -> Batch:
    """The batch of a step where B is 1, from one group, made by version `step` - 1 unless it is there `again`."""
    if not again:
        lease = await queue.lease("w", step - 1)
        assert isinstance(lease, Lease)
        await queue.submit(lease, group_for(lease))
    batch = await queue.take(fence, step)
    assert isinstance(batch, Batch)
    return batch


async def finish_steps(queue: SampleQueue, fence: str, steps: int) -> None:
    """The first `steps` steps where B is 1, none committed."""
    for step in range(1, steps + 1):
        await one_group_batch(queue, fence, step)
        await queue.finish(fence, step)
