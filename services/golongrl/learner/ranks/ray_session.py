"""The Ray that the ranks run on: the cluster of a RayJob (RAY_ADDRESS), or a local one with nothing but what they need.

Apart from `cluster`, so that Ray can start while verl, which takes as long to import, is being imported.
"""

import os

import ray
import torch

# verl warns at import of every engine that is not installed.
QUIET = "ignore::UserWarning:verl.workers.engine"

# The shards of a step travel through it; a batch of the paper's size is 0.5 GB and belongs on a cluster.
_LOCAL_OBJECT_STORE_BYTES = 256 << 20

# Ray itself gives its own processes half a minute, in which a small, busy machine may not even have read them from its
# disk, as verl is being imported beside them.
_START_S = "300"


def joined() -> bool:
    """Whether an existing cluster is used."""
    return "RAY_ADDRESS" in os.environ


def connect(ranks: int) -> None:
    """Join the cluster, or start a local Ray with room for `ranks`."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if joined():
        ray.init()
        return
    # Ray would run its workers at the lowest priority but four, and engines on the same cores would starve the ranks.
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_raylet_start_wait_time_s", _START_S)
    ray.init(
        address="local",
        num_cpus=ranks,
        num_gpus=torch.cuda.device_count(),
        include_dashboard=False,
        object_store_memory=_LOCAL_OBJECT_STORE_BYTES,
    )


def shutdown() -> None:
    """Stop the local Ray, or leave the cluster's."""
    if ray.is_initialized():
        ray.shutdown()
