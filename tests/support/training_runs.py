"""TrainingRuns of a release `demo`, the RayJobs made for them, and what its queue says."""

import copy
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from golongrl import recipe as recipes
from golongrl.kubernetes.rayjob.site import Pool, Site, patch
from golongrl_operator.build import objects, resolve
from golongrl_operator.cases import Seen
from golongrl_operator.reconcile import ReconcileResult, reconcile


def _template(container: str) -> dict[str, Any]:
    volumes = [{"name": "recipe", "configMap": {"name": "demo-golongrl-recipe"}}, {"name": "tmp", "emptyDir": {}}]
    return {"spec": {"containers": [{"name": container, "image": "learner:1"}], "volumes": volumes}}


# As small as a RayJob can be; tests/charts gives the operator those that the chart renders.
RAYJOB: dict[str, Any] = {
    "apiVersion": "ray.io/v1",
    "kind": "RayJob",
    "metadata": {"name": "demo-golongrl-learner", "labels": {"app.kubernetes.io/instance": "demo"}},
    "spec": {
        "entrypoint": "golongrl learner",
        "rayClusterSpec": {
            "headGroupSpec": {"template": _template("ray-head")},
            "workerGroupSpecs": [{"groupName": "ranks", "replicas": 1, "template": _template("ray-worker")}],
        },
    },
}
WORKLOAD: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {
        "name": "demo-golongrl-rollout",
        "labels": {"app.kubernetes.io/instance": "demo", "app.kubernetes.io/component": "rollout"},
    },
    "spec": {
        "selector": {"matchLabels": {"app.kubernetes.io/instance": "demo", "app.kubernetes.io/component": "rollout"}},
        "template": {
            "metadata": {
                "labels": {"app.kubernetes.io/instance": "demo", "app.kubernetes.io/component": "rollout"},
                "annotations": {},
            },
            "spec": {
                "initContainers": [
                    {"name": "engine", "args": ["ls /store/weights; golongrl engine --context-length 512"]}
                ],
                "containers": [
                    {
                        "name": "worker",
                        "env": [
                            {"name": "GOLONGRL_RUN", "value": "demo"},
                            {"name": "GOLONGRL_WEIGHTS", "value": "/store/weights"},
                            {"name": "GOLONGRL_REWARD_URL", "value": "http://demo-golongrl-reward:8080"},
                        ],
                    }
                ],
                "volumes": [{"name": "recipe", "configMap": {"name": "demo-golongrl-recipe"}}],
            },
        },
    },
}
EVALUATION: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {
        "name": "demo-golongrl-evaluation",
        "labels": {"app.kubernetes.io/instance": "demo", "app.kubernetes.io/component": "evaluation"},
    },
    "spec": {
        "backoffLimit": 3,
        "template": {
            "metadata": {
                "labels": {"app.kubernetes.io/instance": "demo", "app.kubernetes.io/component": "evaluation"}
            },
            "spec": {
                "containers": [
                    {
                        "name": "evaluation",
                        "image": "ghcr.io/golongrl/golongrl-learner:0.1.0",
                        "command": [
                            "golongrl", "eval", "run", "long-context", "--target", "/store/run", "--last",
                            "--data", "/store/eval-data", "--out", "/store/evals/long-context",
                            "--summary", "/dev/termination-log", "--judge", "http://judge/v1",
                        ],
                        "resources": {"requests": {"cpu": "1"}},
                    }
                ]
            },
        },
    },
}  # fmt: skip
SITE = Site(
    release="demo",
    namespace="rl",
    run="demo",
    redis_url="redis://demo-golongrl-redis:6379/0",
    gpu_resource="nvidia.com/gpu",
    recipe=recipes.read_tree("quickstart"),
    rayjob=RAYJOB,
    pool=Pool(workload=WORKLOAD, replicas=2, autoscaled=False, gpus=0),
    store="/store",
    evaluation=EVALUATION,
)
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
QUEUE = {
    "version": 12,
    "committed": 10,
    "trained": 24,
    "in_batches": 0,
    "ready": 3,
    "rejected": 1,
    "leased": 2,
    "staleness": {0: 3, 1: 2, 2: 0},
    "max_staleness": 1,
    "weights": {"version": 11},
    "stopped": None,
    "blocking": None,
    "bytes": 1,
    "reserved_bytes": 1,
    "max_bytes": 100,
}
SERVICES = [
    {"service": "learner", "id": "head", "age_s": 1.0, "fields": {"doing": "updating", "for_s": "1"}},
    {"service": "rollout", "id": "pod-a", "age_s": 1.0, "fields": {"phase": "generating", "waiting_for": ""}},
]
PICTURE = {"queue": QUEUE, "services": SERVICES}


def a_site(recipe: dict[str, Any] | None = None, **learner: Any) -> Site:
    """SITE after an upgrade that changed its recipe or its RayJob's spec."""
    changed = patch(SITE.recipe, recipe or {})
    return replace(SITE, recipe=changed, rayjob=patch(SITE.rayjob, {"spec": learner}))


def a_run(name: str = "r", age: int = 0, status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "uid": f"uid-{name}", "generation": 3, "creationTimestamp": f"2026-01-01T00:00:{age:02}Z"}
    body = {"release": "demo", "recipePreset": "quickstart", **spec}
    return {"metadata": metadata, "spec": body, **({"status": status} if status else {})}


def a_job(run: dict[str, Any], attempt: int = 0, deleting: bool = False, **status: str) -> dict[str, Any]:
    """The RayJob that the operator makes, as KubeRay then tells of it."""
    job = copy.deepcopy(objects(SITE, run, resolve(SITE, run), attempt)[1])
    job["status"] = status or {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
    if deleting:
        job["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return job


def one(run: dict[str, Any], *jobs: dict[str, Any], **seen: Any) -> ReconcileResult:
    """What the operator does about a run that has the release for itself."""
    (outcome,) = reconcile(SITE, Seen(seen.pop("now", NOW), [run], jobs, **seen))
    return outcome
