"""Parts of Kubernetes' objects in the values: what the API server refuses is refused with its path, the rest taken.

Shapes of one part are the schema's to say; parts that do not fit each other are the templates'.
"""

import json
from typing import Any

import pytest

from golongrl.kubernetes.rayjob.load import ValuesError, load_values
from support.chart_values import MATRIX, at, faults
from support.helm import CHART, Helm, Manifest, containers, pod_specs
from support.placements import LONG, MISFITS, ODD_SHAPES, SPREAD, TAKEN

ENV = {"name": "A"}


def to(**block: Any) -> list[Manifest]:
    return [{"to": [{"ipBlock": block}]}]


def extra(name: str, version: str = "v1", kind: str = "ConfigMap") -> Manifest:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}}


# What one part may not be.
SHAPES = [
    *((f"reward/{key}", value) for key, value in ODD_SHAPES),
    ("reward/env", [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "x"}}}]),
    ("reward/env", [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "X", "key": "k"}}}]),
    ("reward/env", [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.replicas"}}}]),
    ("reward/env", [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "cpu"}}}]),
    ("reward/env", [{"name": "A", "valueFrom": {"fileKeyRef": {"key": "a"}}}]),
    ("reward/podLabels", {f"{'x' * 64}": "a"}),
    ("reward/podAnnotations", {"a/b/c": "a"}),
    ("reward/resources/limits", {"gpu": 1}),
    ("reward/env", [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "3m"}}}]),
    ("run", "x" * 64),
    ("run", "a-"),
    ("construction/preset", "nope"),
    ("operator/gpuBudget", 2_000_000),
    ("rollout/engine/startupSeconds", 2**31 - 1),
    ("rollout/drainSeconds", 604_801),
    ("redis/image/repository", "a..b"),
    ("redis/image/repository", "a//b"),
    ("redis/image/pullPolicy", "Sometimes"),
    ("model/imageVolume/reference", "http://x/y"),
    ("model/imageVolume/pullPolicy", "always"),
    ("networkPolicy/extraEgress/learner", [{"ports": [{"port": 70000}]}]),
    ("networkPolicy/extraEgress/learner", [{"ports": [{"port": 0}]}]),
    ("networkPolicy/extraEgress/learner", [{"ports": [{"port": "443"}]}]),
    ("networkPolicy/extraEgress/learner", [{"ports": [{"port": "a--b"}]}]),
    ("networkPolicy/extraEgress/learner", [{"ports": [{"port": 1, "endPort": 65536}]}]),
    ("networkPolicy/extraEgress/learner", [{"ports": [{"protocol": "tcp"}]}]),
    ("networkPolicy/extraEgress/learner", to()),
    *(
        ("networkPolicy/extraEgress/learner", to(cidr=cidr))
        for cidr in ("10.0.0.0", "10.0.0.0/33", "10.0.0/8", "::/129", ":::/8", "1::2::3/64", "12345::/8", "1:2:3/64")
    ),
    ("networkPolicy/extraEgress/learner", to(cidr="10.0.0.0/8", **{"except": ["10.1.0.0"]})),
    ("evaluation/data", "a/../../b"),
    ("construction/out", "a/.."),
    ("rbac/viewer/subjects", [{"kind": "User"}]),
    ("rbac/viewer/subjects", [{"kind": "User", "name": ""}]),
    ("extraObjects", [{}]),
    ("extraObjects", [{"apiVersion": "v1", "kind": "ConfigMap"}]),
    ("extraObjects", [{"apiVersion": "v1", "kind": "", "metadata": {"name": "x"}}]),
    ("extraObjects", [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}}]),
]  # fmt: skip
# What does not fit each other, with what the message says.
PARTS = [
    *((f"reward/{key}", value, said) for key, value, said in MISFITS),
    ("construction/passrate/small/engine/env", [ENV, ENV], "engine.env: A stands there twice"),
    ("learner/env", [{"name": "GOLONGRL_RUN", "value": "x"}], "GOLONGRL_RUN is set by the chart"),
    ("learner/env", [{**ENV, "valueFrom": {}}], "needs exactly one source"),
    *(
        (
            f"{part}/env",
            [{**ENV, "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "containerName": name}}}],
            f"has a container {name}",
        )
        for part, name in (
            ("redis", "gone"),
            ("rollout", "reward"),
            ("learner", "ray-worker"),
            ("construction/passrate/small/engine", "wait"),
        )
    ),
    (
        "learner/env",
        [{**ENV, "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        "A has a value and valueFrom",
    ),
    ("reward/podLabels", {"app.kubernetes.io/component": "x"}, "reward.podLabels: the chart or KubeRay sets the label"),
    ("commonLabels", {"app.kubernetes.io/instance": "x"}, "commonLabels: the chart or KubeRay sets the label"),
    ("learner/podLabels", {"ray.io/group": "x"}, "learner.podLabels: the chart or KubeRay sets the label ray.io/group"),
    ("rollout/podAnnotations", {"checksum/recipe": "x"}, "the chart sets the annotation checksum/recipe"),
    ("storage/annotations", {"helm.sh/resource-policy": "delete"}, "the chart sets the annotation helm.sh"),
    ("reward/podAnnotations", {"a": "x" * 261120}, "reward.podAnnotations: has 261121 bytes of names and values"),
    ("global/imagePullSecrets", ["a", "b", "a"], "global.imagePullSecrets: a name stands there twice"),
    ("network/ncclEnv", {"HOME": "/x"}, "network.ncclEnv: HOME is set by the chart"),
    (
        "network",
        {"socketInterface": "eth0", "ncclEnv": {"NCCL_SOCKET_IFNAME": "ib0"}},
        "network.ncclEnv: NCCL_SOCKET_IFNAME is set by the chart, or by another value",
    ),
    ("learner/head/rayStartParams", {"labels": "a=b"}, "learner.head.rayStartParams.labels: KubeRay refuses it"),
    ("learner/submitter", {"requests": {"cpu": "1.5"}, "limits": {"cpu": "100m"}}, "requests.cpu 1.5 is more than"),
    ("reward/resources/limits", {"a.b/c": "500m"}, "500m is not a whole number"),
    ("networkPolicy/extraEgress/redis", [{"ports": [{"port": 9, "endPort": 8}]}], "endPort 8 is below port 9"),
    ("networkPolicy/extraEgress/redis", [{"ports": [{"endPort": 8}]}], "endPort needs a port"),
    ("networkPolicy/extraEgress/redis", [{"ports": [{"port": "http", "endPort": 8}]}], "endPort needs a port"),
    ("networkPolicy/extraEgress/redis", [{"to": [{}]}], "redis.0.to.0: names nobody"),
    (
        "networkPolicy/extraEgress/redis",
        [{"to": [{"ipBlock": {"cidr": "::/0"}, "podSelector": {}}]}],
        "ipBlock excludes podSelector",
    ),
    *(
        ("networkPolicy/extraEgress/redis", to(cidr=cidr, **{"except": [part]}), f"{part} is not a part of")
        for cidr, part in (
            ("10.0.0.0/8", "11.0.0.0/16"), ("10.0.0.0/8", "10.0.0.0/8"), ("10.0.0.0/9", "10.128.0.0/16"),
            ("2001:db8::/33", "2001:db8:8000::/48"), ("::/0", "10.0.0.0/8"),
        )
    ),
    ("rbac/viewer/subjects", [{"kind": "ServiceAccount", "name": "x"}], "a ServiceAccount needs its namespace"),
    (
        "rbac/viewer/subjects", [{"kind": "ServiceAccount", "name": "A_b", "namespace": "n"}],
        "subjects.0.name: no ServiceAccount is called A_b",
    ),
    ("learner/gang", {"scheduler": "kueue", "queue": "Q_a"}, "learner.gang.queue: no queue is called Q_a"),
    ("learner/gang", {"scheduler": "volcano", "queue": "Q_a"}, "learner.gang.queue: no queue is called Q_a"),
    *(
        (
            "reward/env",
            [{**ENV, "valueFrom": {"resourceFieldRef": {"resource": resource, "divisor": divisor}}}],
            f"divisor: {divisor} does not fit {resource}",
        )
        for resource, divisor in (("limits.cpu", "1Mi"), ("requests.memory", "1m"), ("limits.hugepages-2Mi", "1m"))
    ),
    ("reward/resources/limits", {"requests.nvidia.com/gpu": "1"}, "is not a resource of a container"),
    (
        "learner/workers/resources",
        {"limits": {"hugepages-2Mi": "4Mi"}},
        "hugepages-2Mi needs an amount of cpu or memory",
    ),
    ("rollout/engine", {"port": 8090}, "rollout.engine.port: 8090 is used by the worker"),
    ("rollout/engine", {"args": ["--a", "--config=x"]}, "rollout.engine.args.1: --config=x: the chart gives the"),
    ("construction/passrate/large/engine", {"args": ["--config", "x"]}, "passrate.large.engine.args.0: --config: the "),
    ("construction/passrate/large/engine", {"port": 20000}, "large.engine.port: 20000 is used"),
    (
        "reward",
        {"autoscaling": {"enabled": True}, "resources": {"requests": {"cpu": None}}},
        "set reward.resources.requests.cpu",
    ),
    ("learner/image", {"registry": "a." * 100 + "a", "repository": "b" * 60}, "learner.image: registry (or"),
    ("global/imageRegistry", "a." * 120 + "a", ".image: registry (or global.imageRegistry) and repository have more"),
    ("model/imageVolume/reference", "a" * 256 + ":1", "imageVolume.reference: has more than 255 characters"),
    ("commonLabels", {f"{LONG}/x": "y"}, f"commonLabels: {LONG[:40]}... has more than 253 characters before the slash"),
    ("learner/podAnnotations", {f"{LONG}/x": ""}, "learner.podAnnotations: aaa"),
    ("metrics/monitors/labels", {f"{LONG}/x": ""}, "metrics.monitors.labels: aaa"),
    ("redis/topologySpreadConstraints", [{**SPREAD, "topologyKey": f"{LONG}/x"}], "Constraints.0.topologyKey: aaa"),
    ("reward/resources/limits", {f"{LONG}/x": 1}, "reward.resources.limits: aaa"),
    ("rollout/engine/gpuResource", f"{LONG}/x", "rollout.engine.gpuResource: aaa"),
    ("learner/gang/queue", "q", "learner.gang.queue: learner.gang.scheduler is none"),
    (
        "model",
        {"existingClaim": "m", "imageVolume": {"reference": "x/y:1"}},
        "model: existingClaim and imageVolume.reference are both mounted",
    ),
    ("construction", {"enabled": True, "pipeline": "a: [1"}, "construction.pipeline: this is no YAML mapping"),
    (
        "extraObjects", [extra("demo-x"), extra("{{ .Release.Name }}-x")],
        "extraObjects.1: ConfigMap demo-x is also made by",
    ),
    ("extraObjects", [extra("demo-x"), extra("demo-golongrl-recipe")], "golongrl-recipe is also made by the chart"),
    *(
        (
            "extraObjects", [extra(f"demo-golongrl{name}", version, kind)],
            f"extraObjects.0: {kind} demo-golongrl{name} is also",
        )
        for version, kind, name in (
            ("apps/v2", "Deployment", "-reward"), ("v1", "Pod", "-test"),
            ("v1", "ConfigMap", "-dashboard-queue"), ("networking.k8s.io/v1", "NetworkPolicy", "-redis"),
        )
    ),
    ("extraObjects", [extra('{{ printf "%c" 39 }}')], "extraObjects.0: is not YAML once its templates are filled in"),
]  # fmt: skip
DIVISORS = [
    {"name": f"B{number}", "valueFrom": {"resourceFieldRef": {"resource": resource, "divisor": divisor}}}
    for number, (resource, divisor) in enumerate(
        [("limits.cpu", "1m"), ("limits.cpu", 1), ("limits.cpu", "0"), ("requests.memory", "1Mi"), ("limits.memory", 0)]
    )
]
RIGHT: Manifest = {
    "reward": {
        "tolerations": [
            {"operator": "Exists"}, {"key": "a"}, {"key": "", "operator": "Exists", "effect": ""},
            {"key": "a", "operator": "Gt", "value": "5"},
        ],
        "affinity": TAKEN["affinity"],
        "topologySpreadConstraints": [SPREAD, {**SPREAD, "whenUnsatisfiable": "ScheduleAnyway"},
                                      {**SPREAD, "topologyKey": "host", "minDomains": 2}],
        "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}},
                *DIVISORS],
        "resources": {"limits": {"memory": "0.5Gi", "a.b/c": "2"}, "requests": {"memory": "512Mi", "a.b/c": 2}},
    },
    "networkPolicy": {"extraEgress": {"learner": [
        {"ports": [{"port": 1, "endPort": 65535}, {"port": "https-1"}, {"protocol": "UDP"}],
         "to": [{"podSelector": {}}]},
        *to(cidr="10.0.0.0/8", **{"except": ["10.0.0.0/9", "10.255.255.255/32"]}),
        *to(cidr="0.0.0.0/0", **{"except": ["169.254.0.0/16"]}),
        *to(cidr="2001:db8::/33", **{"except": ["2001:db8:7fff::/48", "2001:DB8::1/128"]}),
        *to(cidr="::ffff:10.0.0.0/104", **{"except": ["::ffff:a01:0/112"]}),
        {},
    ]}},
    "rbac": {"viewer": {"create": True, "subjects": [{"kind": "ServiceAccount", "name": "a", "namespace": "b"},
                                                     {"kind": "Group", "name": "system:masters"}]}},
    "commonLabels": {"team": "a"},
    # Of another group, kind or namespace than an object of the chart.
    "extraObjects": [extra("demo-golongrl-reward", "serving.knative.dev/v1", "Service"),
                     extra("demo-golongrl-recipe", kind="Secret"),
                     {**extra("x"), "metadata": {"name": "demo-golongrl-recipe", "namespace": "other"}}],
}  # fmt: skip


@pytest.mark.parametrize(("path", "value"), SHAPES, ids=lambda item: str(item)[:60])
def test_a_shape_that_the_api_server_refuses_is_refused_with_its_path(path: str, value: Any) -> None:
    found = faults(at(path, value))
    assert found
    assert all(one.replace(".", "/").startswith(f"$/{path}") for one in found), found
    with pytest.raises(ValuesError, match=path.replace("/", ".")):
        load_values(overrides=at(path, value))


@pytest.mark.parametrize(("path", "value", "said"), PARTS, ids=lambda item: str(item)[:60])
def test_parts_that_do_not_fit_each_other_are_refused_in_one_line(
    helm4: Helm, path: str, value: Any, said: str
) -> None:
    assert faults(at(path, value)) == []
    message = helm4.refusal(at(path, value))
    assert said in message
    assert path.replace("/", ".") in message
    assert message.count("\n") <= 3


def test_what_the_api_server_takes_is_taken_as_it_is(helm: Helm) -> None:
    assert faults(RIGHT) == []
    load_values(overrides=RIGHT)
    objects = helm.template(RIGHT)
    spec = objects.one("Deployment", "-reward")["spec"]["template"]["spec"]
    given = RIGHT["reward"]
    assert {key: spec[key] for key in ("tolerations", "affinity", "topologySpreadConstraints")} == {
        key: given[key] for key in ("tolerations", "affinity", "topologySpreadConstraints")
    }
    policy = objects.one("NetworkPolicy", "-learner")["spec"]["egress"]
    assert all(rule in policy for rule in RIGHT["networkPolicy"]["extraEgress"]["learner"])


def test_threads_of_the_libraries_give_way_to_the_users(helm4: Helm) -> None:
    mine = [{"name": "OMP_NUM_THREADS", "value": "4"}]
    values = {"learner": {"env": mine}, "rollout": {"engine": {"env": mine}}}
    for name, _, spec in pod_specs(helm4.template(values)):
        for container in containers(spec):
            found = [entry["value"] for entry in container.get("env", []) if entry["name"] == "OMP_NUM_THREADS"]
            assert found in ([], ["4"]), name


@pytest.mark.parametrize("switches", MATRIX)
def test_no_variable_of_a_container_stands_twice(helm4: Helm, switches: str) -> None:
    """Server-side apply and KubeRay's CRDs refuse it. So the user's lists may not name what the chart sets."""
    known = (CHART / "templates" / "common" / "_checks.tpl").read_text()
    given = json.dumps(MATRIX[switches])
    for pod, _, spec in pod_specs(helm4.template(MATRIX[switches])):
        lists = [[entry["name"] for entry in spec.get("volumes", [])]]
        for container in containers(spec):
            names = [entry["name"] for entry in container.get("env", [])]
            lists += [names, [entry["mountPath"] for entry in container.get("volumeMounts", [])]]
            unknown = [
                name for name in names if f'"{name}"' not in given and name.removeprefix("GOLONGRL_") not in known
            ]
            assert all(name.removeprefix("GOLONGRL_") in known for name in unknown), pod
        assert all(len(words) == len(set(words)) for words in lists), pod


@pytest.mark.parametrize(
    ("path", "key"), [("reward/podLabels", "a b"), ("network/ncclEnv", "1A"), ("redis/resources/limits", "me m")]
)
def test_helm_names_the_mapping_of_a_wrong_key(helm: Helm, path: str, key: str) -> None:
    message = helm.refusal(at(path, {key: "1"}))
    assert path.replace("/", ".") in message.replace("/", ".")
    assert key in message


def test_extra_objects_are_compared_with_those_of_all_templates() -> None:
    """Helm does not tell a chart its templates: they are listed."""
    text = (CHART / "templates" / "common" / "_identity.tpl").read_text()
    listed = text.partition('{{- define "golongrl.templates" -}}')[2].partition("{{- end")[0].split()
    files = {
        path.relative_to(CHART / "templates").with_suffix("").as_posix() for path in CHART.glob("templates/*/*.yaml")
    }
    assert sorted(listed) == sorted(files - {"common/checks", "common/extra-objects"})
