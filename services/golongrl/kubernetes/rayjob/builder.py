"""The learner's RayJob, built from recipe and values by pure functions.

The chart's template says the same in Helm's language; tests/charts renders both over a matrix of values and holds them
equal, so that `golongrl render rayjob` and `helm install` never disagree.
"""

from typing import Any, Final

from golongrl.errors import InputError
from golongrl.kubernetes.rayjob import naming
from golongrl.kubernetes.rayjob.naming import Release
from golongrl.kubernetes.values import Values
from golongrl.kubernetes.values.common import Resources
from golongrl.kubernetes.values.inputs import SecretKey
from golongrl.recipe import Recipe

Manifest = dict[str, Any]

# The Ray of the learner image (pyproject's `ray`); KubeRay must be told.
RAY_VERSION: Final = "2.60.0"
RECIPE_FILE: Final = "/etc/golongrl/recipe.yaml"
# KubeRay's submitter writes next to nothing.
_SUBMITTER_SCRATCH: Final = "1Gi"
# Seconds that a learner has after SIGTERM to finish the step it is in.
_GRACE_S: Final = 120
# Of the learner's /healthz and /metrics; Ray's own metrics are at 8080.
PORT: Final = 8090

_POD_SECURITY: Final[Manifest] = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "runAsGroup": 1000,
    "fsGroup": 1000,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
_CONTAINER_SECURITY: Final[Manifest] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
# Pinning memory for RDMA: a process that is not root never gets an added capability.
_RDMA_SECURITY: Final[Manifest] = {
    "runAsNonRoot": False,
    "runAsUser": 0,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"], "add": ["IPC_LOCK"]},
}


class ValuesError(InputError, ValueError):
    """Recipe and values do not fit each other; the message is one line that names the key."""


def rayjob(recipe: Recipe, values: Values, release: Release, suffix: str) -> Manifest:
    """The RayJob that trains `recipe` with the services of a release.

    Args:
        suffix: ends the name; jobs are immutable, so a changed one needs another (the chart hashes its content).

    Raises:
        ValuesError: the GPUs are not the recipe's ranks.
    """
    learner = values.learner
    own_cluster = not learner.cluster_selector
    _check_ranks(recipe, values)
    spec: Manifest = {"entrypoint": command(values), "submissionMode": learner.submission_mode}
    if own_cluster:
        spec |= {
            "backoffLimit": learner.backoff_limit,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": learner.ttl_seconds_after_finished,
        }
    else:
        # The pods of an existing cluster have no prepare step of ours.
        build = f"golongrl data prepare {RECIPE_FILE} --out {naming.store(values)}/data"
        spec["entrypoint"] = f"sh -c '{build} && exec {command(values).replace(chr(39), '')}'"
        spec["clusterSelector"] = {"ray.io/cluster": learner.cluster_selector}
    if learner.active_deadline_seconds:
        spec["activeDeadlineSeconds"] = learner.active_deadline_seconds
    if learner.pre_running_deadline_seconds:
        spec["preRunningDeadlineSeconds"] = learner.pre_running_deadline_seconds
    if learner.submission_mode == "K8sJobMode":
        spec["submitterConfig"] = {"backoffLimit": 2}
        spec["submitterPodTemplate"] = _submitter(values, release)
    if own_cluster:
        spec["rayClusterSpec"] = _cluster(values, release)
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {
            "name": f"{naming.fullname(release, values)}-learner-{suffix}",
            **({"namespace": release.namespace} if release.namespace else {}),
            "labels": {**naming.component_labels(release, values, "learner", {}), **_gang_labels(values, release)},
        },
        "spec": spec,
    }


def command(values: Values) -> str:
    """The learner's command line."""
    store = naming.store(values)
    line = f"golongrl learner --recipe {RECIPE_FILE} --data {store}/data --weights {store}/weights --out {store}/run"
    # On a cluster of somebody else's the port may be taken, and its pods do not name it.
    serve = [] if values.learner.cluster_selector else [f"--host 0.0.0.0 --port {PORT}"]
    return " ".join([line, *serve, *(f"'{argument}'" for argument in values.learner.args)])


def _check_ranks(recipe: Recipe, values: Values) -> None:
    workers = values.learner.workers
    gpus = workers.replicas * workers.gpus
    if not values.learner.cluster_selector and gpus and gpus != recipe.learner.ranks:
        raise ValuesError(
            f"learner.workers: {workers.replicas} replicas x {workers.gpus} gpus are not the recipe's learner.ranks "
            f"{recipe.learner.ranks}"
        )


def _gang_labels(values: Values, release: Release) -> dict[str, str]:
    gang = values.learner.gang
    match gang.scheduler:
        case "kueue":
            # No `suspend`: Kueue's webhook sets it, and an upgrade must not take it back.
            return {"kueue.x-k8s.io/queue-name": gang.queue}
        case "volcano":
            return {"ray.io/scheduler-name": "volcano", "volcano.sh/queue-name": gang.queue}
        case "yunikorn":
            return {
                "ray.io/scheduler-name": "yunikorn",
                "ray.io/gang-scheduling-enabled": "true",
                "yunikorn.apache.org/app-id": f"{naming.fullname(release, values)}-learner",
                "yunikorn.apache.org/queue": gang.queue,
            }
        case "none":
            return {}


def _cluster(values: Values, release: Release) -> Manifest:
    learner = values.learner
    ports = {"gcs-server": 6379, "dashboard": 8265, "client": 10001, "metrics": 8080, "http": PORT}
    head = {
        **_container(
            values, "ray-head", _env_driver(values, release), _resources(learner.head.resources), _CONTAINER_SECURITY
        ),
        "ports": [{"name": name, "containerPort": port} for name, port in ports.items()],
    }
    cluster: Manifest = {
        "rayVersion": RAY_VERSION,
        "headGroupSpec": {
            "rayStartParams": {"dashboard-host": "0.0.0.0", **learner.head.ray_start_params},
            "template": _template(values, release, head, _volumes(values, release), _prepare(values)),
        },
    }
    if learner.workers.replicas:
        workers, rdma = learner.workers, values.network.rdma
        counts = {workers.gpu_resource: workers.gpus} if workers.gpus else {}
        if rdma.enabled:
            counts[rdma.resource] = rdma.count
        security = _RDMA_SECURITY if rdma.enabled else _CONTAINER_SECURITY
        worker = {
            **_container(values, "ray-worker", _env_ranks(values), _resources(workers.resources, counts), security),
            "ports": [{"name": "metrics", "containerPort": 8080}],
        }
        cluster["workerGroupSpecs"] = [
            {
                "groupName": "ranks",
                "replicas": workers.replicas,
                "minReplicas": workers.replicas,
                "maxReplicas": workers.replicas,
                "rayStartParams": dict(workers.ray_start_params),
                "template": _template(values, release, worker, _volumes(values, release)),
            }
        ]
    return cluster


def _submitter(values: Values, release: Release) -> Manifest:
    container: Manifest = {
        "name": "submitter",
        **_image(values),
        "env": _env_home(),
        "securityContext": _CONTAINER_SECURITY,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
        "resources": _resources(values.learner.submitter),
    }
    template = _template(values, release, container, [_scratch(_SUBMITTER_SCRATCH)])
    del template["spec"]["terminationGracePeriodSeconds"]
    template["spec"]["restartPolicy"] = "Never"
    return template


def _template(
    values: Values,
    release: Release,
    container: Manifest,
    volumes: list[Manifest],
    prepare: list[Manifest] | None = None,
) -> Manifest:
    learner = values.learner
    metadata: Manifest = {"labels": naming.component_labels(release, values, "learner", dict(learner.pod_labels))}
    if learner.pod_annotations:
        metadata["annotations"] = dict(learner.pod_annotations)
    spec: Manifest = {
        "serviceAccountName": naming.service_account(release, values, "learner"),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": _POD_SECURITY,
        "terminationGracePeriodSeconds": _GRACE_S,
        "containers": [container],
        "volumes": volumes,
    }
    optional: Manifest = {
        "imagePullSecrets": [{"name": name} for name in values.global_.image_pull_secrets],
        "nodeSelector": learner.node_selector,
        "tolerations": learner.tolerations,
        "affinity": learner.affinity or _beside_the_volume(values, release),
        "topologySpreadConstraints": learner.topology_spread_constraints,
        "priorityClassName": learner.priority_class_name,
        "runtimeClassName": learner.runtime_class_name,
        "initContainers": prepare,
    }
    spec |= {key: value for key, value in optional.items() if value}
    return {"metadata": metadata, "spec": spec}


def _beside_the_volume(values: Values, release: Release) -> Manifest:
    """A volume that one node can attach keeps its pods there; the first may go anywhere, as it matches itself."""
    if values.storage.existing_claim or "ReadWriteMany" in values.storage.access_modes:
        return {}
    parts = {"key": "app.kubernetes.io/component", "operator": "In", "values": ["learner", "rollout"]}
    selector = {"matchLabels": {"app.kubernetes.io/instance": release.name}, "matchExpressions": [parts]}
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": selector}
    return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def _container(values: Values, name: str, env: list[Manifest], resources: Manifest, security: Manifest) -> Manifest:
    return {
        "name": name,
        **_image(values),
        "env": env,
        "resources": resources,
        "securityContext": security,
        "volumeMounts": _mounts(values),
    }


def _prepare(values: Values) -> list[Manifest]:
    """Steps before the learner; both keep what is there already."""
    store, steps = naming.store(values), dict[str, list[str]]()
    for kind, download in {"model": values.model.download, "dataset": values.dataset.download}.items():
        if download.repo:
            folder = f"{store}/{kind}s/{download.repo.rsplit('/', 1)[-1]}"
            steps[f"download-{kind}"] = [
                "hf", "download", download.repo, "--repo-type", kind, "--revision", download.revision,
                "--local-dir", folder,
            ]  # fmt: skip
    steps["prepare-data"] = ["golongrl", "data", "prepare", RECIPE_FILE, "--out", f"{store}/data"]
    resources = _resources(values.learner.head.resources)
    return [
        {**_container(values, name, _env_prepare(values), resources, _CONTAINER_SECURITY), "command": line}
        for name, line in steps.items()
    ]


def _image(values: Values) -> Manifest:
    image = values.learner.image
    return {"image": naming.image(values, image), "imagePullPolicy": image.pull_policy}


def _resources(resources: Resources, devices: dict[str, int] | None = None) -> Manifest:
    # Amounts as text, as KubeRay's operator writes them back: else they become its fields, which Helm may not change.
    parts = {
        name: {**part, **(devices or {})}
        for name, part in (("requests", resources.requests), ("limits", resources.limits))
    }
    return {name: {key: str(amount) for key, amount in part.items()} for name, part in parts.items() if part}


def _env_home() -> list[Manifest]:
    return [_plain("HOME", "/tmp"), _plain("USER", "golongrl"), _plain("LOGNAME", "golongrl")]


def _env_driver(values: Values, release: Release) -> list[Manifest]:
    """Of the process that speaks to the queue, writes metrics and may fetch a model."""
    store = naming.store(values)
    return [
        *_env_home(),
        _plain("GOLONGRL_RUN", naming.run(release, values)),
        _plain("GOLONGRL_RECIPE", RECIPE_FILE),
        _plain("GOLONGRL_DATA", f"{store}/data"),
        _plain("GOLONGRL_WEIGHTS", f"{store}/weights"),
        _plain("GOLONGRL_REDIS_URL", naming.redis_url(release, values)),
        _secret("GOLONGRL_REDIS_PASSWORD", naming.auth_secret(release, values), "redis-password"),
        *_env_libraries(values),
        *_env_token("HF_TOKEN", values.huggingface),
        *_env_token("WANDB_API_KEY", values.wandb),
        *_env_network(values),
        *values.learner.env,
    ]


def _env_ranks(values: Values) -> list[Manifest]:
    """The driver hands ranks what they work on; they ask nobody and hold no secret."""
    return [*_env_home(), *_env_libraries(values), *_env_network(values), *values.learner.env]


def _env_prepare(values: Values) -> list[Manifest]:
    """Of the steps before the learner, which speak to the hub alone."""
    return [
        *_env_home(),
        *_env_libraries(values),
        *_env_token("HF_TOKEN", values.huggingface),
        *values.learner.env,
    ]


def _env_libraries(values: Values) -> list[Manifest]:
    env = [_plain("HF_HOME", f"{naming.store(values)}/hf"), _plain("RAY_USAGE_STATS_ENABLED", "0")]
    if not values.learner.workers.gpus:
        env += [_plain("OMP_NUM_THREADS", "1"), _plain("OMP_WAIT_POLICY", "passive")]
    return env


def _env_network(values: Values) -> list[Manifest]:
    interface, nccl = values.network.socket_interface, values.network.nccl_env
    sockets = [_plain(f"{kind}_SOCKET_IFNAME", interface) for kind in ("NCCL", "GLOO") if interface]
    return sockets + [_plain(name, value) for name, value in sorted(nccl.items())]


def _env_token(name: str, source: SecretKey) -> list[Manifest]:
    return [_secret(name, source.existing_secret, source.key)] if source.existing_secret else []


def _plain(name: str, value: str) -> Manifest:
    return {"name": name, "value": value}


def _secret(name: str, secret: str, key: str) -> Manifest:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def _scratch(size: str) -> Manifest:
    return {"name": "tmp", "emptyDir": {"sizeLimit": size}}


def _has_models(values: Values) -> bool:
    return bool(values.model.existing_claim or values.model.image_volume.reference)


def _mounts(values: Values) -> list[Manifest]:
    mounts: list[Manifest] = [
        {"name": "recipe", "mountPath": "/etc/golongrl", "readOnly": True},
        {"name": "store", "mountPath": "/store"},
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "shm", "mountPath": "/dev/shm"},
    ]
    if _has_models(values):
        mounts.append({"name": "models", "mountPath": "/models", "readOnly": True})
    return mounts


def _volumes(values: Values, release: Release) -> list[Manifest]:
    model = values.model
    volumes: list[Manifest] = [
        {"name": "recipe", "configMap": {"name": f"{naming.fullname(release, values)}-recipe"}},
        {"name": "store", "persistentVolumeClaim": {"claimName": naming.claim(release, values)}},
        _scratch(values.learner.scratch),
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": values.learner.shared_memory}},
    ]
    if model.existing_claim:
        claim = {"claimName": model.existing_claim, "readOnly": True}
        volumes.append({"name": "models", "persistentVolumeClaim": claim})
    elif model.image_volume.reference:
        image = {"reference": model.image_volume.reference, "pullPolicy": model.image_volume.pull_policy}
        volumes.append({"name": "models", "image": image})
    return volumes
