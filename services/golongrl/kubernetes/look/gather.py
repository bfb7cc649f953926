"""A release as the cluster shows it: the calls under `golongrl status`.

Invariant: only the pods must be readable. What else may not be read is listed as not checked, and never taken as fine.
"""

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from golongrl.kubernetes import kinds
from golongrl.kubernetes.cluster import Cluster
from golongrl.kubernetes.cluster_errors import (
    ClusterError,
    ClusterForbiddenError,
    ClusterMissingError,
    ClusterSilentError,
)
from golongrl.kubernetes.forms import fit_picture
from golongrl.kubernetes.kinds import ObjectKind
from golongrl.kubernetes.look.pods import Pod, read_pods
from golongrl.kubernetes.look.references import Reference, references
from golongrl.kubernetes.look.refusals import learner_end, read_claims, read_held, read_refusals, read_stopped
from golongrl.kubernetes.look.runs import run_lines, run_problems, suspended_runs

Json = dict[str, Any]

# Containers that know the queue, in the order they are asked.
_ASKED: Final = (("rollout", "worker"), ("learner", "ray-head"), ("learner", "learner"))
# Pods of one component that are asked; each may take its whole deadline.
_TRIES: Final = 3
_COMMAND: Final = ("golongrl", "status", "--json")
# What makes pods of the release, makes what makes them, or says how many. Not every cluster has those of others.
_OWNERS: Final[tuple[ObjectKind, ...]] = (
    kinds.REPLICA_SET,
    kinds.STATEFUL_SET,
    kinds.JOB,
    kinds.RAY_JOB,
    kinds.RAY_CLUSTER,
    kinds.LEADER_WORKER_SET,
    kinds.SCALED_OBJECT,
)
_ANY_RELEASE: Final = "app.kubernetes.io/part-of=golongrl"


@dataclass(frozen=True)
class ReleaseLook:
    """The release's pods and runs, and what prevents others."""

    pods: list[Pod]
    refused: list[str] = field(default_factory=list)
    """What does not exist, or may not run, and why."""
    runs: list[str] = field(default_factory=list)
    """A line for each of its TrainingRuns."""
    held: list[str] = field(default_factory=list)
    """What is suspended on purpose."""
    unknown: list[str] = field(default_factory=list)
    """What could not be checked."""
    done: str = ""
    """That the learner's job is complete."""


async def look(calls: Cluster, release: str) -> ReleaseLook:
    """One look at a release.

    Raises:
        ClusterError: the API server refused or did not answer, or there is nothing of that release.
    """
    ours, unknown = f"app.kubernetes.io/instance={release}", list[str]()
    pods = await calls.list_objects(kinds.POD, ours)
    claims, events, runs, deployments, *made = await asyncio.gather(
        _list(calls, unknown, kinds.CLAIM, ours),
        _list(calls, unknown, kinds.EVENT, fields="type=Warning"),
        _list(calls, unknown, kinds.TRAINING_RUN),
        _list(calls, unknown, kinds.DEPLOYMENT, _ANY_RELEASE),
        *(_list(calls, unknown, kind, ours) for kind in _OWNERS),
    )
    operators = [item for item in deployments or [] if _label(item, "component") == "operator"]
    mine = [item for item in deployments or [] if _label(item, "instance") == release]
    owners = [*(item for found in made for item in found or []), *mine]
    of_release = [item for item in runs or [] if item["spec"].get("release") == release]
    if not (pods or owners or of_release):
        raise ClusterError(await _nothing(calls, release))
    served = None if deployments is None else {_label(item, "instance") for item in operators}
    missing = await _missing(calls, unknown, references(owners, claims or []))
    refused = [
        *missing,
        *read_claims(claims or []),
        *read_refusals([*owners, *(claims or []), *pods], events or []),
        *read_stopped(owners),
        *run_problems(runs or [], release, served),
    ]
    done, failure = learner_end(owners)
    refused += [failure] if failure else []
    held = [*read_held(owners), *suspended_runs(of_release)]
    return ReleaseLook(read_pods(pods), refused, list(run_lines(of_release)), held, unknown, done)


async def ask(calls: Cluster, seen: ReleaseLook) -> Json | None:
    """Queue and processes, as a worker or the learner sees them.

    None if none of them answers; `seen.unknown` then has the last reason.
    """
    reason = ""
    for pod, container in _askable(seen.pods):
        try:
            told = json.loads(await calls.execute(pod.name, container, _COMMAND))
            # An empty answer is one: it knows nothing of the queue.
            picture = {} if told == {} else fit_picture(told)
            if picture is not None:
                return picture
            reason = _other_words(pod)
        except ClusterForbiddenError as error:
            # Nor may the others be asked.
            reason = str(error)
            break
        except ClusterError as error:
            reason = str(error)
        except (ValueError, RecursionError):
            reason = _other_words(pod)
    if reason:
        seen.unknown.append(reason)
    return None


def _label(item: Json, name: str) -> str:
    return str((item["metadata"].get("labels") or {}).get(f"app.kubernetes.io/{name}", ""))


def _other_words(pod: Pod) -> str:
    return f"pod {pod.name}: `{' '.join(_COMMAND)}` did not print what this version reads: does it run another one?"


def _askable(pods: Sequence[Pod]) -> Iterator[tuple[Pod, str]]:
    """A few running pods of each component with their container, ready ones first."""
    for component, container in _ASKED:
        running = [pod for pod in pods if pod.component == component and pod.phase == "Running"]
        # Those of a run with a queue of its own know only that one.
        running.sort(key=lambda pod: (bool(pod.run), not pod.ready))
        yield from ((pod, container) for pod in running[:_TRIES])


async def _list(
    calls: Cluster, unknown: list[str], kind: ObjectKind, labels: str | None = None, fields: str | None = None
) -> list[Json] | None:
    """Objects of a kind that a cluster may not have; None, and a line in `unknown`, if they cannot be read."""
    try:
        return await calls.list_objects(kind, labels, fields)
    except ClusterMissingError:
        return []
    except ClusterSilentError:
        # The others would only wait for their deadlines too.
        raise
    except ClusterError as error:
        # It may not be read, or the webhook that converts this kind does not answer.
        unknown.append(str(error))
        return None


async def _missing(calls: Cluster, unknown: list[str], wanted: Sequence[Reference]) -> list[str]:
    """A line for each object that is referred to and does not exist."""

    async def check(reference: Reference) -> str | None:
        try:
            if await calls.exists(reference.kind, reference.name):
                return None
        except ClusterSilentError:
            raise
        except ClusterError as error:
            unknown.append(str(error))
            return None
        return f"{reference} does not exist: {reference.user} needs it"

    lines = await asyncio.gather(*(check(reference) for reference in wanted))
    return [line for line in lines if line is not None]


async def _nothing(calls: Cluster, release: str) -> str:
    """That a release is not here, and which are."""
    others = await _list(calls, [], kinds.POD, _ANY_RELEASE)
    names = sorted({_label(item, "instance") for item in others or []} - {""})
    here = f"releases here: {', '.join(names)}" if names else "`helm list -A` shows those of all namespaces"
    return f"release {release}: nothing of it in namespace {calls.namespace} of API server {calls.server}; {here}"
