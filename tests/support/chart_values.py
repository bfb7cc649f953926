"""Sets of values to render: every switch that adds, removes or reshapes objects, alone and together."""

import json
from typing import Any

import jsonschema

from golongrl.kubernetes.rayjob.load import merge
from golongrl.kubernetes.values import Values
from support.helm import CHART, Manifest

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS = Values().model_dump(mode="json", by_alias=True)


def at(path: str, value: Any) -> Manifest:
    """Values in which only this key is set."""
    tree: Any = value
    for key in reversed(path.split("/")):
        tree = {key: tree}
    return dict(tree)


def faults(values: Manifest) -> list[str]:
    """Paths that a JSON schema validator names, of the values merged with the defaults as Helm merges them.

    Sections that the values leave alone are the defaults, which render elsewhere: to look through them again takes ten
    times as long.
    """
    whole = merge(DEFAULTS, {key: value for key, value in values.items() if key != "recipe"})
    sections = {key: section if key in values else True for key, section in SCHEMA["properties"].items()}
    return [
        error.json_path for error in jsonschema.Draft7Validator({**SCHEMA, "properties": sections}).iter_errors(whole)
    ]


SGLANG = {"rollout": {"engine": {"kind": "sglang", "tensorParallel": 8, "image": {"repository": "lmsysorg/sglang"}}}}
GPU_LEARNER = {"recipe": {"learner": {"ranks": 16}}, "learner": {"workers": {"replicas": 2, "gpus": 8}}}
PLACED: Manifest = {
    "nodeSelector": {"pool": "a"},
    "tolerations": [{"key": "gpu", "operator": "Exists"}],
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
    ],
    "priorityClassName": "high",
    "runtimeClassName": "nvidia",
    "podLabels": {"team": "rl"},
    "podAnnotations": {"note": "x"},
    "env": [{"name": "EXTRA", "value": "1"}],
}
MATRIX: dict[str, Manifest] = {
    "defaults": {},
    "no-policies": {"networkPolicy": {"enabled": False}, "tests": {"enabled": False}},
    "everything-observed": {
        "metrics": {"monitors": {"enabled": True}, "rules": {"enabled": True}, "dashboards": {"enabled": True}},
        "rbac": {
            "viewer": {
                "create": True,
                "subjects": [{"kind": "User", "name": "ann", "apiGroup": "rbac.authorization.k8s.io"}],
            }
        },
    },
    "autoscaled": {
        # The share of the request is what it scales by.
        "reward": {"autoscaling": {"enabled": True}, "resources": {"requests": {"cpu": 1}}},
        "rollout": {"autoscaling": {"enabled": True, "prometheus": {"authenticationRef": "prom"}}},
        "redis": {"pdb": {"enabled": True}},
        "learner": {"pdb": {"enabled": True}},
    },
    "external-redis": {
        "redis": {"external": {"host": "redis.example", "port": 6380, "tls": True, "cidrs": ["10.1.0.0/16"]}},
        "auth": {"existingSecret": "mine"},
        "storage": {"existingClaim": "shared", "folder": "run-7"},
        "serviceAccount": {"create": False},
    },
    "one-node-gpus": {**SGLANG, **GPU_LEARNER},
    "engines-over-nodes": {
        **GPU_LEARNER,
        "rollout": {**SGLANG["rollout"], "nodes": 2, "autoscaling": {"enabled": True}},
        "network": {"socketInterface": "eth0", "ncclEnv": {"NCCL_IB_HCA": "mlx5"}, "rdma": {"enabled": True}},
    },
    "broadcast-weights": {"recipe": {"learner": {"weights": "broadcast"}}},
    # What is evaluated is trained.
    "learner-off": {
        "learner": {"enabled": False},
        "evaluation": {"enabled": True, "judge": {"url": "http://judge/v1", "model": "j", "existingSecret": "judge"}},
    },
    "construction": {"construction": {"enabled": True, "documentsClaim": "papers"}},
    "construction-on-ray": {
        "storage": {"existingClaim": "shared", "folder": "r7"},
        "construction": {
            "enabled": True,
            "pipeline": "name: mine\n",
            "stages": ["sources", "generate", "verify", "passrate", "decontaminate"],
            "llm": {"existingSecret": "writer"},
            "ray": {"enabled": True, "replicas": 2},
            "activeDeadlineSeconds": 86400,
        },
    },
    "construction-with-engines": {
        "serviceAccount": {"create": False},
        "construction": {
            "enabled": True,
            "preset": "paper",
            "stages": ["verify", "passrate"],
            "passrate": {
                "enabled": True,
                "small": {
                    "replicas": 4,
                    "engine": {
                        "kind": "sglang",
                        "image": {"registry": "docker.io", "repository": "lmsysorg/sglang", "tag": "v0.5.3-cu129"},
                        "args": ["--mem-fraction-static=0.8"],
                    },
                },
                "large": {
                    "replicas": 2,
                    "engine": {
                        "kind": "sglang",
                        "image": {"registry": "docker.io", "repository": "lmsysorg/sglang", "tag": "v0.5.3-cu129"},
                        "tensorParallel": 4,
                    },
                },
            },
        },
    },
    "construction-with-cpu-engines": {"construction": {"enabled": True, "passrate": {"enabled": True}}},
    "learner-job": {"learner": {"mode": "job", "activeDeadlineSeconds": 3600}},
    "kueue": {**GPU_LEARNER, "learner": {**GPU_LEARNER["learner"], "gang": {"scheduler": "kueue", "queue": "q"}}},
    "volcano": {"learner": {"gang": {"scheduler": "volcano", "queue": "q"}, "submissionMode": "SidecarMode"}},
    "yunikorn": {"learner": {"gang": {"scheduler": "yunikorn", "queue": "q"}, "submissionMode": "HTTPMode"}},
    "existing-cluster": {"learner": {"clusterSelector": "team-ray", "args": ["--verbose"]}},
    "placed": dict.fromkeys(("redis", "reward", "rollout", "learner"), PLACED)
    | {"global": {"imageRegistry": "mirror.example", "imagePullSecrets": ["pull"]}, "commonLabels": {"cost": "rl"}},
    "operator": {"operator": {"enabled": True, "maxRestarts": 4, "stallSeconds": 3600, **PLACED}},
    "operator-outside": {
        "operator": {"enabled": True, "apiServerCidrs": ["10.0.0.1/32"], "apiServerPorts": [6443]},
        "redis": {"external": {"host": "redis.example", "port": 6380, "cidrs": ["10.1.0.0/16"]}},
        "serviceAccount": {"create": False},
        "learner": {"enabled": False},
        "metrics": {"monitors": {"enabled": True, "labels": {"a": "b"}}, "rules": {"enabled": True}},
    },
    "hub-model": {
        "recipe": {"model": {"path": "/store/models/Qwen3-4B"}},
        "model": {"download": {"repo": "Qwen/Qwen3-4B"}, "existingClaim": "models"},
        "dataset": {"download": {"repo": "Kwai-Klear/GoLongRL", "revision": "v1"}},
        "huggingface": {"existingSecret": "hf"},
        "wandb": {"existingSecret": "wandb", "key": "k"},
        "learner": {"preRunningDeadlineSeconds": 600},
    },
    "model-in-image": {"model": {"imageVolume": {"reference": "registry.example/qwen3:1"}}},
    "extras": {
        "extraObjects": [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-x"}, "data": {"a": "b"}}
        ]
    },
}
# Sets that render one RayJob, the learner's.
RAYJOBS = [
    name
    for name in MATRIX
    if name not in ("learner-off", "learner-job", "construction-on-ray") and "operator" not in MATRIX[name]
]
# The paper's runs on 16 x 8 GPUs.
PRESETS = tuple(sorted(path.name for path in CHART.glob("values-qwen3-*.yaml")))
