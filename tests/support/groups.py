"""Small groups as a rollout worker would hand them in."""

from collections.abc import Sequence

import numpy as np

from golongrl.queue import Group, Lease, Response, VersionSpan


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
    lease: Lease, version: int | None = None, *, tokens: int = 4, rewards: Sequence[float | None] = (0.0, 1.0)
) -> Group:
    """A group for `lease`, sampled by `version` (default: the lease's engine version)."""
    made_by = lease.engine_version if version is None else version
    return Group(
        uid=lease.uid,
        row=lease.row,
        epoch=lease.epoch,
        task="T1",
        metric="F1",
        task_key="F1",
        reward_mode="qa",
        prompt_ids=np.arange(8, dtype=np.int32),
        responses=tuple(response(tokens, made_by, reward) for reward in rewards),
        worker=lease.worker,
        engine_version=lease.engine_version,
        timings={"generate": 0.5},
    )
