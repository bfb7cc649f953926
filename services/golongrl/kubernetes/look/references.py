"""Names that a release's objects refer to: what is missing keeps pods from starting. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from golongrl.kubernetes import kinds
from golongrl.kubernetes.kinds import ObjectKind
from golongrl.kubernetes.look.objects import holds

Json = Mapping[str, Any]


@dataclass(frozen=True, order=True)
class Reference:
    """An object that must exist, and one that needs it."""

    kind: ObjectKind
    name: str
    user: str

    def __str__(self) -> str:
        return f"{self.kind.name.lower()} {self.name}"


def references(owners: Iterable[Json], claims: Iterable[Json]) -> list[Reference]:
    """What the pods of these objects, and these claims, refer to; each name once."""
    found: dict[tuple[ObjectKind, str], Reference] = {}
    for reference in [*_of_owners(owners), *_of_claims(claims)]:
        found.setdefault((reference.kind, reference.name), reference)
    return sorted(found.values(), key=str)


def _of_owners(owners: Iterable[Json]) -> Iterator[Reference]:
    for item in owners:
        user = f"{item['kind'].lower()} {item['metadata']['name']}"
        for spec in _pod_specs(item):
            for kind, name in _of_pod(spec):
                yield Reference(kind, name, user)
        for kind, name in _of_triggers(item):
            yield Reference(kind, name, user)
        queue = (item["metadata"].get("labels") or {}).get(kinds.KUEUE_QUEUE)
        # Without Kueue nobody reads the label, and nobody suspends the job.
        if queue and (item.get("spec") or {}).get("suspend"):
            yield Reference(kinds.LOCAL_QUEUE, queue, user)
        for template in item.get("spec", {}).get("volumeClaimTemplates") or []:
            if name := template["spec"].get("storageClassName"):
                yield Reference(kinds.STORAGE_CLASS, name, user)


def _of_triggers(item: Json) -> Iterator[tuple[ObjectKind, str]]:
    """How KEDA logs in where it asks; without it, it scales nothing."""
    for trigger in (item.get("spec") or {}).get("triggers") or [] if item["kind"] == "ScaledObject" else ():
        named = trigger.get("authenticationRef") or {}
        if named.get("kind") in (None, "TriggerAuthentication") and named.get("name"):
            yield kinds.TRIGGER_AUTHENTICATION, named["name"]


def _of_claims(claims: Iterable[Json]) -> Iterator[Reference]:
    for item in claims:
        bound = (item.get("status") or {}).get("phase") == "Bound"
        if (name := item["spec"].get("storageClassName")) and not bound:
            yield Reference(kinds.STORAGE_CLASS, name, f"persistentvolumeclaim {item['metadata']['name']}")


def _pod_specs(item: Json) -> Iterator[Json]:
    """The pod templates of an object that may still make pods."""
    spec, status = item.get("spec") or {}, item.get("status") or {}
    match item["kind"]:
        case "ReplicaSet" if not spec.get("replicas"):
            return
        case "Deployment":
            return  # Its ReplicaSets make the pods.
        case "Job" if status.get("succeeded") or holds(item, "Failed"):
            return
        case "RayJob":
            if status.get("jobDeploymentStatus") not in ("Complete", "Failed"):
                yield from _ray_pods(spec.get("rayClusterSpec") or {})
                yield from _template(spec.get("submitterPodTemplate"))
        case "RayCluster":
            yield from _ray_pods(spec)
        case "LeaderWorkerSet":
            templates = spec.get("leaderWorkerTemplate") or {}
            yield from _template(templates.get("leaderTemplate"))
            yield from _template(templates.get("workerTemplate"))
        case _:
            yield from _template(spec.get("template"))


def _ray_pods(spec: Json) -> Iterator[Json]:
    for group in [spec.get("headGroupSpec"), *(spec.get("workerGroupSpecs") or [])]:
        yield from _template((group or {}).get("template"))


def _template(template: Json | None) -> Iterator[Json]:
    if template and template.get("spec"):
        yield template["spec"]


def _of_pod(spec: Json) -> Iterator[tuple[ObjectKind, str]]:
    for key, kind in (("priorityClassName", kinds.PRIORITY_CLASS), ("runtimeClassName", kinds.RUNTIME_CLASS)):
        if name := spec.get(key):
            yield kind, name
    # Every namespace has the account "default".
    if (name := spec.get("serviceAccountName")) and name != "default":
        yield kinds.SERVICE_ACCOUNT, name
    for secret in spec.get("imagePullSecrets") or []:
        yield kinds.SECRET, secret["name"]
    for volume in spec.get("volumes") or []:
        yield from _of_volume(volume)
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        for variable in container.get("env") or []:
            yield from _named((variable.get("valueFrom") or {}), "secretKeyRef", "configMapKeyRef")
        for source in container.get("envFrom") or []:
            yield from _named(source, "secretRef", "configMapRef")


def _of_volume(volume: Json) -> Iterator[tuple[ObjectKind, str]]:
    if claim := volume.get("persistentVolumeClaim"):
        yield kinds.CLAIM, claim["claimName"]
    secret = volume.get("secret") or {}
    if secret.get("secretName") and not secret.get("optional"):
        yield kinds.SECRET, secret["secretName"]
    template = (volume.get("ephemeral") or {}).get("volumeClaimTemplate") or {}
    if name := (template.get("spec") or {}).get("storageClassName"):
        yield kinds.STORAGE_CLASS, name
    if name := ((volume.get("csi") or {}).get("nodePublishSecretRef") or {}).get("name"):
        yield kinds.SECRET, name
    yield from _named(volume, "configMap")
    for source in (volume.get("projected") or {}).get("sources") or []:
        yield from _named(source, "secret", "configMap")


def _named(item: Json, *keys: str) -> Iterator[tuple[ObjectKind, str]]:
    """References by name that are not optional."""
    for key in keys:
        if (named := item.get(key)) and named.get("name") and not named.get("optional"):
            yield kinds.SECRET if key.startswith("secret") else kinds.CONFIG_MAP, named["name"]
