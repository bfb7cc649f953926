"""The RayJob of a run, made from the one that the chart rendered. Pure: documents in, documents out.

The chart's template (templates/learner/_rayjob.tpl) is the only place that says what a RayJob looks like. The chart
writes it, with the release's recipe, into one JSON document, the site. The operator mounts that document and `golongrl
render rayjob` asks helm for it; both replace the recipe, patch the RayJob and name the result.
"""

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import Field, ValidationError

from golongrl import recipe as recipes
from golongrl.errors import InputError
from golongrl.kubernetes.names import LABEL, LONGEST_LABEL
from golongrl.kubernetes.pod_rules import PodPart, PodTemplate, pod_misfits, without_nulls
from golongrl.kubernetes.values.common import Count, Positive
from golongrl.recipe import Recipe

Manifest = dict[str, Any]

# Keys that identify an entry of a list in Kubernetes' own strategic merge patch, as far as a RayJob has such lists:
# containers, volumes, environment, ports; and KubeRay's worker groups.
_LIST_KEYS: Final = ("name", "groupName")
# Names end in so many characters of a hash; KubeRay allows 47 characters for a RayJob's whole name.
_SUFFIX_LENGTH: Final = 8
# What KubeRay calls the head's own pods and group.
_HEADS: Final = ("head", "headgroup")


class RayJobError(InputError, ValueError):
    """The RayJob does not fit the recipe, or is not one; the message is one line that names the key."""


class _Group(PodPart):
    group_name: Annotated[str, Field(pattern=rf"^{LABEL}$", max_length=LONGEST_LABEL)]
    replicas: Count = 1
    num_of_hosts: Positive = 1
    template: PodTemplate


class _Head(PodPart):
    template: PodTemplate


class _Cluster(PodPart):
    head_group_spec: _Head
    worker_group_specs: list[_Group] = Field(default_factory=list[_Group])


class _Spec(PodPart):
    entrypoint: Annotated[str, Field(min_length=1)]
    submitter_pod_template: PodTemplate | None = None
    ray_cluster_spec: _Cluster | None = None


class _RayJob(PodPart):
    spec: _Spec


class Pool(PodPart):
    """The release's rollout pool."""

    workload: dict[str, Any]
    """A Deployment, or a LeaderWorkerSet."""
    replicas: int
    autoscaled: bool
    """KEDA sets its size."""
    gpus: int
    """Of one engine."""

    @property
    def name(self) -> str:
        """The workload's."""
        return str(self.workload["metadata"]["name"])


class _Document(PodPart):
    release: str
    run: str
    redis_url: str
    gpu_resource: str
    gpu_budget: int
    store: str
    recipe: dict[str, Any]
    ray_job: dict[str, Any]
    pool: Pool
    evaluation: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Site:
    """A release of the chart: its queue, its recipe and its RayJob; never changed. Compared by identity."""

    release: str
    namespace: str
    """Empty leaves it to whoever applies the objects."""
    run: str
    redis_url: str
    gpu_resource: str
    recipe: Mapping[str, Any]
    rayjob: Manifest
    """Its name is a prefix, to which each RayJob made from it adds a hash."""
    pool: Pool
    store: str
    """The release's folder on the shared volume."""
    evaluation: Manifest
    """The Job that evaluates a run; its name is a prefix too."""
    gpu_budget: int = 0
    """GPUs that its runs may use together; 0 is no limit."""


def read_site(text: str, origin: str, release: str, namespace: str) -> Site:
    """The site from the chart's document.

    Raises:
        RayJobError: it is not the document that this version's chart writes, or it is another release's.
    """
    try:
        found = _Document.model_validate_json(text)
    except ValidationError as error:
        why = recipes.explain(error, _Document)
        raise RayJobError(f"{origin}: {why}; it must be the release.json of this version's chart") from error
    if found.release != release:
        raise RayJobError(f"{origin}: it is of the release {found.release!r}, not of {release!r}")
    return Site(
        release=release,
        namespace=namespace,
        run=found.run,
        redis_url=found.redis_url,
        gpu_resource=found.gpu_resource,
        recipe=found.recipe,
        rayjob=found.ray_job,
        pool=found.pool,
        store=found.store,
        evaluation=found.evaluation,
        gpu_budget=found.gpu_budget,
    )


def patch(base: Any, over: Any) -> Any:
    """`over` on top of `base`, as Kubernetes merges: mappings by key, lists of named entries by name.

    A null removes the key; any other list or value replaces what was there.
    """
    if isinstance(over, Mapping):
        merged = copy.deepcopy(dict(base)) if isinstance(base, Mapping) else {}
        for key, value in over.items():
            if value is None:
                merged.pop(key, None)
            else:
                merged[key] = patch(merged.get(key), value)
        return merged
    if isinstance(over, list) and isinstance(base, list) and (key := _list_key([*base, *over])):
        entries = {entry[key]: entry for entry in base}
        for entry in over:
            entries[entry[key]] = patch(entries.get(entry[key]), entry)
        return list(entries.values())
    return copy.deepcopy(over)


def _list_key(entries: Sequence[Any]) -> str | None:
    for key in _LIST_KEYS:
        if all(isinstance(entry, Mapping) and isinstance(entry.get(key), str) for entry in entries):
            return key
    return None


def check(job: Manifest, recipe: Recipe, gpu_resource: str) -> int:
    """Raise what would otherwise show only after the pods have started; the GPUs of its workers.

    Raises:
        RayJobError: it is not a RayJob that trains, the API server would refuse its pods, or its workers have another
            number of GPUs than the recipe ranks.
    """
    gpus = worker_gpus(job, gpu_resource)
    for number, group in enumerate((job["spec"].get("rayClusterSpec") or {}).get("workerGroupSpecs") or []):
        if group["groupName"] in _HEADS:
            where = f"spec.rayClusterSpec.workerGroupSpecs.{number}.groupName"
            raise RayJobError(f"RayJob: {where}: KubeRay calls the head {group['groupName']}; choose another name")
    for path, template in _templates(job):
        for line in pod_misfits(template["spec"], f"RayJob: {path}.spec"):
            raise RayJobError(line)
    if gpus and gpus != recipe.learner.ranks:
        raise RayJobError(
            f"RayJob: its workers have {gpus} GPUs ({gpu_resource}), but the recipe's learner.ranks is "
            f"{recipe.learner.ranks}; the two must be equal"
        )
    return gpus


def worker_gpus(job: Manifest, gpu_resource: str) -> int:
    """The GPUs of the workers of a RayJob; 0 if it uses an existing cluster.

    Raises:
        RayJobError: it is not a RayJob that trains.
    """
    try:
        cluster = _RayJob.model_validate(without_nulls(job)).spec.ray_cluster_spec
    except ValidationError as error:
        raise RayJobError(f"RayJob: {recipes.explain(error, _RayJob)}") from error
    gpus = 0
    for number, group in enumerate(cluster.worker_group_specs if cluster else ()):
        for container in group.template.spec.containers:
            amount = str(container.resources.limits.get(gpu_resource, 0))
            if not amount.isdecimal():
                raise RayJobError(f"RayJob: worker group {number}: {gpu_resource}: {amount!r} is not a whole number")
            gpus += group.replicas * int(amount)
    return gpus


def content(job: Manifest, recipe: Recipe) -> str:
    """Hash of everything that the RayJob runs: its recipe, its pods and how it is scheduled."""
    metadata = {key: value for key, value in job["metadata"].items() if key in ("labels", "annotations")}
    return digest(recipes.dump(recipe) + json.dumps([metadata, job["spec"]], sort_keys=True))


def digest(text: str) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


def documents(job: Manifest, recipe: Recipe, namespace: str, identity: str) -> list[Manifest]:
    """The ConfigMap with the recipe and the RayJob that reads it; nothing of `job` is shared with them.

    Args:
        identity: hashed into the name of both. RayJobs are immutable, so a changed one needs another name.
    """
    made = copy.deepcopy(job)
    name = f"{made['metadata']['name']}-{digest(identity)[:_SUFFIX_LENGTH]}"
    made["metadata"] |= {"name": name} | ({"namespace": namespace} if namespace else {})
    for template in pod_templates(made):
        for volume in template["spec"].get("volumes", []):
            if volume["name"] == "recipe":
                volume["configMap"] = {"name": name}
    metadata = {key: value for key, value in made["metadata"].items() if key != "annotations"}
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": copy.deepcopy(metadata),
        "data": {"recipe.yaml": recipes.dump(recipe)},
    }
    return [config, made]


def learner_templates(job: Manifest) -> list[Manifest]:
    """Pods of a RayJob: head, ranks and submitter."""
    return [template for _, template in _templates(job)]


def pod_templates(job: Manifest) -> list[Manifest]:
    """Those of the Ray cluster of a RayJob; none if it uses an existing one."""
    return [template for _, template in _cluster_templates(job)]


def _templates(job: Manifest) -> Iterator[tuple[str, Manifest]]:
    """Each with the path to it."""
    yield from _cluster_templates(job)
    if submitter := job["spec"].get("submitterPodTemplate"):
        yield "spec.submitterPodTemplate", submitter


def _cluster_templates(job: Manifest) -> Iterator[tuple[str, Manifest]]:
    cluster = job["spec"].get("rayClusterSpec")
    if cluster is not None:
        yield "spec.rayClusterSpec.headGroupSpec.template", cluster["headGroupSpec"]["template"]
        for number, group in enumerate(cluster.get("workerGroupSpecs") or []):
            yield f"spec.rayClusterSpec.workerGroupSpecs.{number}.template", group["template"]
