"""Watches that start a pass when a run or a RayJob changes.

An event only says that something has changed: a pass lists everything again. So nothing is remembered between two
watches, and whatever is no event of the Kubernetes API costs a pass and a line in the log.
"""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Final

import structlog

from golongrl.kubernetes import kinds
from golongrl.kubernetes.cluster import Cluster
from golongrl.kubernetes.cluster_errors import ClusterError, ClusterMissingError
from golongrl.kubernetes.forms import count, fit
from golongrl.kubernetes.kinds import ObjectKind

log = structlog.get_logger()

# Between two watches, if the server ends each of them at once.
_AGAIN_S: Final = 1.0
_GENERATIONS: Final = {"metadata!": {"generation!": count}, "status!": {"observedGeneration!": count}}


def run_changed(event: dict[str, Any]) -> bool:
    """Whether an event of a TrainingRun is more than the operator's own write of its status."""
    found = fit(event["object"], _GENERATIONS)
    if event["type"] == "DELETED" or found is None:
        return True
    return bool(found["metadata"]["generation"] != found["status"]["observedGeneration"])


async def watch(
    calls: Cluster,
    kind: ObjectKind,
    labels: str | None,
    concerns: Callable[[dict[str, Any]], bool],
    changed: asyncio.Event,
    pause_s: float,
) -> None:
    """Set `changed` at each event that concerns the operator, and after whatever ended a watch; until cancelled.

    Args:
        pause_s: between a watch that failed and the next one.
    """
    told = ""
    while True:
        try:
            async with aclosing(calls.watch(kind, labels)) as events:
                async for event in events:
                    told = ""
                    if concerns(event):
                        changed.set()
            await asyncio.sleep(min(_AGAIN_S, pause_s))
            continue
        except ClusterMissingError:
            # A cluster without KubeRay: the status of the first run that needs a RayJob says so.
            pass
        except ClusterError as error:
            # One line, however often it ends in the same way.
            if str(error) != told:
                log.warning("watch", error=f"{error}; all objects are listed, and it begins again")
            told = str(error)
        changed.set()
        await asyncio.sleep(pause_s)


async def watch_all(calls: Cluster, release: str, changed: asyncio.Event, pause_s: float) -> None:
    """The runs of the namespace, and the release's RayJobs; until cancelled."""
    ours = f"app.kubernetes.io/instance={release}"
    async with asyncio.TaskGroup() as both:
        both.create_task(watch(calls, kinds.TRAINING_RUN, None, run_changed, changed, pause_s))
        both.create_task(watch(calls, kinds.RAY_JOB, ours, lambda _: True, changed, pause_s))
