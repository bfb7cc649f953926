"""What the API server would refuse, the schema refuses first; and what is null renders or is named."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema
import pytest
from pydantic import BaseModel

from golongrl.kubernetes.rayjob.load import ValuesError, load_values, merge
from golongrl.kubernetes.values import Values
from golongrl.kubernetes.values.common import Resources
from golongrl.kubernetes.values.environment import EnvVar
from support.chart_values import DEFAULTS, MATRIX, SCHEMA, at, faults
from support.helm import CHART, Helm, Manifest

NAMES = [
    "fullnameOverride", "nameOverride", "auth/existingSecret", "huggingface/existingSecret", "storage/existingClaim",
    "storage/storageClass", "redis/storageClass", "model/existingClaim", "learner/priorityClassName",
    "rollout/runtimeClassName", "rollout/autoscaling/prometheus/authenticationRef",
]  # fmt: skip
SIZES = [
    "storage/size", "redis/size", "reward/scratch", "rollout/scratch", "rollout/engine/sharedMemory",
    "learner/scratch", "learner/sharedMemory",
]  # fmt: skip
AMOUNTS = [
    "redis/resources/limits/memory", "learner/head/resources/requests/cpu", "learner/submitter/limits/memory",
    "operator/resources/requests/cpu", "rollout/engine/resources/limits/memory",
]  # fmt: skip
LABELS = ["commonLabels", "reward/podLabels", "learner/nodeSelector", "metrics/rules/labels"]
WRONG = [
    *((path, word) for path in NAMES for word in ("Foo", "My_Name", "-a", "a-", "a..b", "a b", "é", "a/b", "x" * 254)),
    *(
        (path, word)
        for path in SIZES
        for word in ("10GB", "1gb", "10 Gi", "Gi", "", "0", "-1Gi", "1GiB", "ten", "1Mib")
    ),
    *((path, word) for path in AMOUNTS for word in ("1gb", "1GB", "500M i", "1core", "-1", "0x1", "1,5", "", -1)),
    *((path, {"a b": "x"}) for path in LABELS),
    *((path, {"a": word}) for path in LABELS for word in ("x y", "x/y", "-x", "x" * 64)),
    ("reward/podAnnotations", {"a b": "x"}),
    ("global/imagePullSecrets", ["Pull"]),
    ("global/imagePullSecrets", [""]),
    ("huggingface/key", "a b"),
    ("huggingface/key", ""),
    ("huggingface/key", "."),
    ("huggingface/key", "..x"),
    ("rollout/autoscaling/cooldownSeconds", 3601),
    *(("metrics/rules/noStepFor", word) for word in ("99999h", "0h", "1d")),
    *(("metrics/monitors/interval", word) for word in ("9999999999y", "1d", "99999999s")),
    ("rollout/autoscaling/prometheus/window", "999999h"),
    ("storage/folder", ".."),
    ("storage/folder", "-x"),
    ("storage/accessModes", []),
    ("redis/external/port", 0),
    ("rollout/engine/port", 65536),
    ("networkPolicy/dns/port", 70000),
    ("networkPolicy/dns/cidrs", ["10.0.0.1"]),
    ("networkPolicy/dns/cidrs", ["10.0.0.256/8"]),
    ("redis/external/cidrs", ["10.0.0.0/33"]),
    ("operator/apiServerCidrs", ["::1/129"]),
    ("operator/apiServerPorts", []),
    ("operator/apiServerPorts", [0]),
    ("redis/external/host", "redis://r"),
    *(("redis/external/host", word) for word in ("a b", "a..b", "-a", "a.-b", "x" * 64, "u:p@h", "a_b")),
    *(("learner/clusterSelector", word) for word in ("My_Cluster", "a b", "a.b", "1a", "a-", "x" * 64)),
    *(
        (path, url)
        for path in ("rollout/autoscaling/prometheus/serverAddress", "evaluation/judge/url", "metrics/rules/runbookUrl")
        for url in ("http://u:p@h", "https://key@h/x", "h", "ftp://h", "http://", "http:///x")
    ),
    ("reward/env", [{"name": "A", "value": "a\x85b"}]),
    ("learner/args", ["a\x85b"]),
    ("network/ncclEnv", {"NCCL_A": "a\x85b"}),
    ("storage/annotations", {"a": "a\x85b"}),
    ("metrics/monitors/interval", "15"),
    ("metrics/monitors/interval", "15 s"),
    ("metrics/monitors/interval", ""),
    ("metrics/rules/noStepFor", "1 hour"),
    ("rollout/autoscaling/prometheus/serverAddress", "prometheus:9090"),
    ("learner/image/registry", "a..b"),
    ("model/imageVolume/reference", "a..b/x:1"),
    ("rollout/maxUnavailable", "10"),
    ("rollout/maxUnavailable", "ten%"),
    ("rollout/maxUnavailable", "101%"),
    ("rollout/maxUnavailable", -1),
    ("reward/pdb/maxUnavailable", "half"),
    ("reward/replicas", 2**31),
    ("learner/activeDeadlineSeconds", -1),
    ("learner/gang/queue", "a b"),
    ("learner/workers/gpuResource", "gpu"),
    ("network/rdma/resource", "rdma/"),
    ("network/ncclEnv", {"1A": "x"}),
    ("learner/env", [{"value": "x"}]),
    ("learner/env", [{"name": "A", "value": 1}]),
    ("learner/env", [{"name": "A-B"}]),
    ("learner/env", [{"name": "A", "value": "a\0b"}]),
    ("construction/passrate/small/engine/env", [{"name": "A", "value": "\0"}]),
    ("network/ncclEnv", {"NCCL_A": "\0"}),
    ("network/socketInterface", "eth0\0"),
    ("model/imageVolume/reference", "a" * 457),
    ("learner/image/tag", "a b"),
    ("learner/image/repository", "Golongrl/x"),
    ("learner/image/registry", "http://x"),
    ("model/imageVolume/reference", "a b"),
    ("model/download/repo", "a/b/c"),
    ("dataset/download/revision", "--x"),
    ("learner/head/resources/limits", {"a b": 1}),
    ("learner/head/rayStartParams", {"A=b": "1"}),
    ("learner/head/rayStartParams", {"num-cpus": "1\n2"}),
]
RIGHT = [
    *((path, word) for path in NAMES for word in ("", "a", "a-b", "a.b", "0", "123", "on", "x" * 63)),
    *((path, word) for path in SIZES for word in ("10Gi", "1.5Gi", "10G", "500M", "1e9", "1073741824", ".5Ti")),
    *((path, word) for path in AMOUNTS for word in ("500m", "1", "0.5", "1Gi", "1e3", 2, 0, 5 << 30)),
    *((path, {"a.b/c_d": word}) for path in LABELS for word in ("", "x", "A.b_c-d", "1")),
    ("reward/podAnnotations", {"a.b/c": "anything, at all"}),
    ("redis/external/host", "redis.example.com"),
    ("redis/external/host", "10.0.0.1"),
    ("learner/clusterSelector", "team-ray-2"),
    ("evaluation/judge/url", ""),
    ("evaluation/judge/url", "http://judge.ns.svc:8000/v1"),
    ("rollout/autoscaling/prometheus/serverAddress", "https://prom.example/select/0/prometheus"),
    ("metrics/rules/runbookUrl", "https://wiki.example?page=~a@b"),
    ("reward/env", [{"name": "A", "value": "a\tb\n\xa0é"}]),
    ("redis/external/cidrs", ["10.0.0.0/8", "0.0.0.0/0", "2001:db8::/32", "::/0", "::ffff:10.0.0.0/104"]),
    ("metrics/monitors/interval", "1m30s"),
    ("rollout/maxUnavailable", "10%"),
    ("rollout/maxUnavailable", 3),
    ("learner/gang/queue", "root.team-a"),
    ("learner/image/registry", "localhost:5000"),
    ("learner/image/registry", "registry.example/mirror"),
    ("learner/env", [{"name": "A", "value": "1"}]),
    ("learner/env", [{"name": "_b", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a/b']"}}}]),
    ("learner/args", ["--out", "a b", "$(x)"]),
    ("storage/folder", "run-7.a"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "value"), WRONG, ids=lambda item: str(item)[:40])
def test_what_the_api_server_would_refuse_is_refused_with_its_path(path: str, value: Any) -> None:
    found = faults(at(path, value))
    assert found
    assert all(one.replace(".", "/").startswith(f"$/{path}") for one in found), found
    with pytest.raises(ValuesError, match=path.replace("/", ".")):
        load_values(overrides=at(path, value))


@pytest.mark.parametrize(("path", "value"), RIGHT, ids=lambda item: str(item)[:40])
def test_what_it_takes_is_taken(path: str, value: Any) -> None:
    assert faults(at(path, value)) == []
    load_values(overrides=at(path, value))


@pytest.mark.parametrize(
    "setting",
    ["fullnameOverride=Foo", "nameOverride=My_Name", "storage.size=10GB", "redis.resources.limits.memory=1gb",
     "learner.scratch=1GiB", "redis.external.cidrs={10.0.0.1}", "reward.podLabels.a=x y"],
)  # fmt: skip
def test_helm_itself_refuses_it_before_it_renders(helm: Helm, setting: str) -> None:
    done = helm.run("template", "demo", str(CHART), "--set", setting)
    assert done.returncode != 0
    assert "values don't meet the specifications of the schema" in done.stderr
    assert setting.partition("=")[0].rpartition(".")[2] in done.stderr


@pytest.mark.parametrize("part", ["reward", "rollout"])
def test_a_minimum_above_the_maximum_is_refused(helm: Helm, part: str) -> None:
    values = {part: {"autoscaling": {"enabled": True, "minReplicas": 5, "maxReplicas": 4}}}
    assert f"{part}.autoscaling: minReplicas 5 is more than maxReplicas 4" in helm.refusal(values)


def keys(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """Every key of the values, sections before what is in them."""
    for name, field in model.model_fields.items():
        key = f"{path}{field.alias or name}"
        yield key
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys(field.annotation, f"{key}/")


KEYS = [key for key in keys(Values) if not key.startswith("recipe/") and key != "crds"]


@cache
def empty() -> frozenset[str]:
    """The keys that may be null."""
    return frozenset(key for key in KEYS if not faults(at(key, None)))


def test_a_null_without_which_nothing_renders_is_named() -> None:
    validator = jsonschema.Draft7Validator(SCHEMA)
    for key in set(KEYS) - empty():
        parent, _, name = f"/{key}".rpartition("/")
        (error,) = validator.iter_errors(merge(DEFAULTS, at(key, None)))
        assert error.json_path.replace(".", "/") == f"${parent}"
        assert name in error.message


def test_sections_are_among_them() -> None:
    named = set(KEYS) - empty()
    assert {"redis", "learner", "rollout/engine", "storage/accessModes", "learner/workers/replicas"} <= named
    assert {"redis/resources", "learner/env", "storage/storageClass", "reward/resources/limits"} <= empty()


@pytest.mark.parametrize("key", ["redis", "learner", "reward/pdb", "rollout/engine/port", "networkPolicy"])
def test_helm_names_it_too(helm: Helm, key: str) -> None:
    """Read from text: `--set key=null`, as a person writes it."""
    done = helm.run("template", "demo", str(CHART), "--set", f"{key.replace('/', '.')}=null")
    assert done.returncode != 0
    assert "nil pointer" not in done.stderr
    assert "values don't meet the specifications of the schema" in done.stderr
    assert key.rpartition("/")[2] in done.stderr


@pytest.mark.parametrize(
    "switches",
    ["defaults", "everything-observed", "autoscaled", "one-node-gpus", "engines-over-nodes", "learner-job", "operator",
     "hub-model", "external-redis", "existing-cluster"],
)  # fmt: skip
def test_every_null_that_means_none_renders(helm: Helm, switches: str) -> None:
    """All of them at once, wherever the switches do not need the value."""
    values: Manifest = MATRIX[switches]
    nulls: Manifest = {}
    for key in sorted(empty()):
        node: Any = values
        for part in key.split("/"):
            node = node.get(part) if isinstance(node, dict) else None
        if node is None:
            nulls = _with(nulls, key, None)
    helm.template(_over(nulls, values))


def _with(tree: Manifest, path: str, value: Any) -> Manifest:
    head, _, rest = path.partition("/")
    if not rest:
        return tree if isinstance(tree.get(head), dict) else tree | {head: value}
    below = tree.get(head)
    # A section that is null has nothing below it.
    return tree if head in tree and below is None else tree | {head: _with(below or {}, rest, value)}


def _over(base: Manifest, over: Manifest) -> Manifest:
    both = {**base, **over}
    for key in base.keys() & over.keys():
        if isinstance(base[key], dict) and isinstance(over[key], dict):
            both[key] = _over(base[key], over[key])
    return both


# Texts that a YAML reader takes for something else if they are not quoted, and that are good names for Kubernetes.
AMBIGUOUS = ("1e3", "0123", "123", "on", "y", "true", "null", "12e4", "0x1f", "1-1-1")
PLAIN = "word"


def texts(model: type[BaseModel], path: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        key = f"{path}{field.alias or name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            if field.annotation not in (Resources, EnvVar):
                yield from texts(field.annotation, f"{key}/")
        elif field.annotation is str:
            yield key


def shape(node: Any, word: str) -> Any:
    """The kinds of all leaves, with the word replaced in keys; texts are one kind."""
    if isinstance(node, dict):
        assert all(isinstance(key, str) for key in node), f"keys that are no texts: {list(node)}"
        return {PLAIN if key == word else key: shape(value, word) for key, value in node.items()}
    if isinstance(node, list):
        return [shape(value, word) for value in node]
    return "text" if isinstance(node, str) else node


@cache
def places(word: str) -> tuple[str, ...]:
    """Every text of the values that may be the word."""
    return tuple(key for key in texts(Values) if key not in CHOOSING and not faults(at(key, word)))


def named(word: str, switches: str) -> Manifest:
    """The switches' values, with the word wherever a text may be it."""
    values: Manifest = MATRIX[switches]
    other = "model/existingClaim" if switches == "model-in-image" else "model/imageVolume/reference"
    unread = {other} if switches == "kueue" else {other, "learner/gang/queue"}
    for key in places(word):
        values = values if key in unread else _over(values, at(key, word))
    both = {"commonLabels": {word: word}, "network": {"ncclEnv": {f"A{PLAIN}": word}}}
    return _over(values, both | {"reward": {"podAnnotations": {word: word}, "args": [word]}})


# Texts that choose what is rendered.
CHOOSING = {"recipePreset", "learner/clusterSelector", "redis/external/host"}


@pytest.mark.parametrize(
    ("switches", "word"),
    [
        # Each set of switches with one of the texts; all of them with each in `make test-full`.
        pytest.param(switches, word, marks=[] if (place - other) % len(AMBIGUOUS) == 0 else [pytest.mark.full])
        for place, switches in enumerate(["operator", "hub-model", "model-in-image", "autoscaled", "kueue", "placed"])
        for other, word in enumerate(AMBIGUOUS)
    ],
)
def test_a_text_stays_a_text(helm4: Helm, switches: str, word: str) -> None:
    """Names, keys, classes and the release itself may be called what YAML takes for a number, a switch or nothing."""
    one = helm4.template(named(word, switches), release=word, namespace=word).objects
    other = helm4.template(named(PLAIN, switches), release=PLAIN, namespace=PLAIN).objects
    for item, plain in zip(one, other, strict=True):
        assert shape(item, word) == shape(plain, PLAIN)
