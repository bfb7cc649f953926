"""Values of wrong types, in places that Kubernetes defines too: refused with their key, or the rest is valid."""

import json
import random
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest
import yaml

from support.helm import CHART, KUBERAY, YAML, Helm, Manifest

SCALARS: tuple[Any, ...] = (
    None, "", -1, 2**40, 1.5, True, "yes", "no", "on", "1e3", "0x10", "010", "~", "n", "a\nb: c", "q\"uo'te", "-", ".",
    "{{ .Values.x }}", "$(X)", "ü", "A_b.C", "x" * 64, "x" * 254, "x.y", 1e30, "a:b", "a@sha256:00", "1Gi ", "\t", "#x",
    "- x", "*a", "&a", "!!int 3", "%x", "'", '"', "\\", "null", "1", "/../..", " x",
)  # fmt: skip
ODD: tuple[Any, ...] = (
    *SCALARS, [], {}, [1], {"a": 1}, ["a\nb"], {"k": "a\nb"}, [{"a": {"b": "{{x}}"}}], {"a.b/c": "d"}, [{}], [[]],
)  # fmt: skip
BASES: tuple[Manifest, ...] = (
    {},
    {"operator": {"enabled": True}},
    {"construction": {"enabled": True, "passrate": {"enabled": True}}, "evaluation": {"enabled": True}},
    {
        "rollout": {"autoscaling": {"enabled": True}}, "reward": {"autoscaling": {"enabled": True}},
        "learner": {"pdb": {"enabled": True}, "gang": {"scheduler": "kueue", "queue": "q"}},
        "rbac": {"viewer": {"create": True}},
    },
    {"redis": {"external": {"host": "r.example", "tls": True}}, "learner": {"mode": "job"}},
)  # fmt: skip
CORE = (
    "v1",
    "apps/v1",
    "batch/v1",
    "networking.k8s.io/v1",
    "policy/v1",
    "rbac.authorization.k8s.io/v1",
    "autoscaling/v2",
)
# Each is one call of helm.
EXAMPLES = 150


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if path:
        yield path
    for key, item in value.items() if isinstance(value, dict) else ():
        yield from leaves(item, (*path, key))


PATHS = [
    path
    for path in leaves(yaml.safe_load((CHART / "values.yaml").read_text()))
    if path[0] not in ("extraObjects", "crds", "recipe")
]


def put(values: Manifest, path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        values = values.setdefault(key, {})
    values[path[-1]] = value


def wrong(helm: Helm, values: Manifest, path: tuple[str, ...]) -> str:
    """What is wrong with helm's answer to these values; nothing if they are refused by name, or render well."""
    done = helm.run(
        "template", "demo", str(CHART), "-n", "rl", "--api-versions", KUBERAY, "--set-json",
        ",".join(f"{key}={json.dumps(value)}" for key, value in values.items()),
    )  # fmt: skip
    if done.returncode:
        # Helm names places as JSON pointers do.
        keys = (path[-1], path[-1].replace("~", "~0").replace("/", "~1"))
        told = any(key in done.stderr for key in keys)
        named = told and "nil pointer" not in done.stderr and "wrong type" not in done.stderr
        return "" if named else done.stderr
    for item in yaml.load_all(done.stdout, Loader=YAML):
        if item and item["apiVersion"] in CORE:
            try:
                kubernetes_validate.validate(item, "1.36", strict=True)
            except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
                return f"{item['kind']} {item['metadata']['name']}: {error}"
    return ""


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("redis.affinity", {"a": 1}, "affinity"),
        ("rollout.affinity", {"nodeAffinity": "x"}, "nodeAffinity"),
        ("learner.tolerations", [{"key": "a", "operator": "Exist"}], "operator"),
        ("learner.tolerations", [{"tolerationSeconds": "60"}], "tolerationSeconds"),
        ("reward.topologySpreadConstraints", [{"maxSkew": "1"}], "maxSkew"),
        ("reward.topologySpreadConstraints", [{"max_skew": 1}], "max_skew"),
        ("networkPolicy.prometheus.podSelector", {"matchLabels": "x"}, "matchLabels"),
        ("networkPolicy.prometheus.podSelector", {"app": "prometheus"}, "app"),
        ("networkPolicy.kuberayOperator.namespaceSelector", {"matchExpressions": [{"operator": "in"}]}, "operator"),
        ("networkPolicy.extraEgress.learner", [{"from": []}], "from"),
        ("networkPolicy.extraEgress.construction", [{"ports": 443}], "ports"),
        ("rbac.viewer.subjects", [{"kind": "Robot", "name": "x"}], "kind"),
        ("rollout.env", [{"name": "A", "valueFrom": {"secretRef": {}}}], "secretRef"),
        ("construction.passrate.small.engine.env", [{"name": "A", "value": 1}], "value"),
        ("construction.passrate.large.tolerations", {"key": "a"}, "tolerations"),
        ("recipe.data.train", "/store/a\x7fb", r"/store/a\x7fb"),
        ("recipe.data.train", "/store/a\x85b", r"/store/a\u0085b"),
        ("recipe.data.train", "/store/a\ufffeb", r"/store/a\ufffeb"),
        ("metrics.rules.runbookUrl", "https://wiki/{{ x", "runbookUrl"),
    ],
)
def test_what_kubernetes_would_refuse_is_refused_with_its_key(helm4: Helm, path: str, value: Any, named: str) -> None:
    values: Manifest = {}
    put(values, tuple(path.split(".")), value)
    assert named in helm4.refusal(values)


def test_what_kubernetes_knows_passes_as_it_is(helm4: Helm) -> None:
    placed: Manifest = {
        "tolerations": [{"operator": "Exists"}, {"key": "a/b", "operator": "Equal", "value": "n", "effect": "NoExecute",
                                                 "tolerationSeconds": 0}],
        "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
                                       "labelSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}}],
    }  # fmt: skip
    spec = helm4.template({"reward": placed}).one("Deployment", "-reward")["spec"]["template"]["spec"]
    assert {key: spec[key] for key in placed} == placed


@pytest.mark.full
@pytest.mark.parametrize("seed", [1, 2])
def test_odd_values_are_refused_by_name_or_render_what_kubernetes_takes(helm4: Helm, seed: int) -> None:
    draw = random.Random(seed)
    found = []
    for _ in range(EXAMPLES):
        values, path, value = json.loads(json.dumps(draw.choice(BASES))), draw.choice(PATHS), draw.choice(ODD)
        try:
            put(values, path, value)
        except (TypeError, AttributeError):
            continue
        if said := wrong(helm4, values, path):
            found.append((path, value, said[-300:]))
    assert found == []
