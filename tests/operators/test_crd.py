"""The CustomResourceDefinition: structural as the API server demands, strict, and true to what the operator reads.

The rules of structural schemas are those of the API server's documentation; the server's own check of them, and what
its CEL makes of the rules, is left to a live cluster.
"""

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import cel
import jsonschema
import kubernetes_validate
import pytest
import yaml

from golongrl import recipe as recipes
from golongrl.kubernetes.look.pods import Pod
from golongrl_operator.build import resolve
from golongrl_operator.cases import Seen
from golongrl_operator.conditions import stamp
from golongrl_operator.crd import crd, schema
from golongrl_operator.reconcile import reconcile
from support.helm import CHART, YAML, Helm, tool
from support.placements import ODD_SHAPES, TAKEN
from support.training_runs import NOW, PICTURE, SITE, a_job, a_run

# What a structural schema may say (apiextensions.k8s.io/v1); `$ref`, `const`, `prefixItems` and the like it may not.
ALLOWED = {
    "type", "format", "description", "properties", "required", "items", "additionalProperties", "nullable", "enum",
    "pattern", "minLength", "maxLength", "minItems", "maxItems", "minimum", "maximum", "exclusiveMinimum",
    "exclusiveMaximum", "x-kubernetes-validations", "x-kubernetes-int-or-string", "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys", "x-kubernetes-preserve-unknown-fields",
}  # fmt: skip

PLACED = ("rollout", "learner", "evaluation")
Node = tuple[str, dict[str, Any]]


def nodes(node: dict[str, Any], path: str = "") -> Iterator[Node]:
    yield path, node
    for name, item in node.get("properties", {}).items():
        yield from nodes(item, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from nodes(node[key], f"{path}[]")


ALL = dict(nodes(schema()))


def plain(node: Any) -> Any:
    """The schema in the words of a JSON schema, closed as kubectl's strict validation closes it."""
    if isinstance(node, list):
        return [plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    made = {key: plain(value) for key, value in node.items() if not key.startswith(("x-kubernetes", "nullable"))}
    for bound in ("Minimum", "Maximum"):
        if made.pop(f"exclusive{bound}", False) is True:
            made[f"exclusive{bound}"] = made.pop(bound.lower())
    if "properties" in node and isinstance(node["properties"], dict) and "apiVersion" not in node["properties"]:
        made["additionalProperties"] = False
    if node.get("x-kubernetes-int-or-string") is True:
        made["type"] = ["integer", "string"]
    if node.get("nullable") is True and "type" in made:
        made["type"] = [made["type"], "null"]
    return made


PLAIN = jsonschema.Draft202012Validator(plain(schema()))


def accepts(body: dict[str, Any]) -> list[str]:
    """What is wrong with a TrainingRun."""
    return [f"{error.json_path}: {error.message}" for error in PLAIN.iter_errors(body)]


def test_it_is_a_valid_definition() -> None:
    kubernetes_validate.validate(crd(), "1.36", strict=True)
    definition = crd()["spec"]
    assert crd()["metadata"]["name"] == f"{definition['names']['plural']}.{definition['group']}"


def test_the_file_is_up_to_date_and_small_enough_for_a_client_side_apply() -> None:
    text = (CHART / "charts" / "crds" / "crds" / "trainingruns.golongrl.io.yaml").read_text()
    assert yaml.load(text, Loader=YAML) == crd()
    # kubectl apply keeps a copy in an annotation, which may have 256 KiB.
    assert len(json.dumps(crd())) < 200_000


def test_every_node_is_structural() -> None:
    for path, node in ALL.items():
        assert set(node) <= ALLOWED, path
        free = node.get("x-kubernetes-preserve-unknown-fields") or node.get("x-kubernetes-int-or-string")
        assert "type" in node or free, path
        assert not ("properties" in node and "additionalProperties" in node), path
        assert node.get("additionalProperties") is not False, path
        assert ("items" in node) == (node.get("type") == "array"), path
        assert not (node.get("nullable") and "enum" in node), f"{path}: the API server refuses null for an enum"
        if node.get("x-kubernetes-list-type") == "map":
            assert set(node["x-kubernetes-list-map-keys"]) <= set(node["items"]["required"]), path
        assert set(node.get("required", [])) <= node.get("properties", {}).keys(), path


@pytest.mark.parametrize("part", PLACED)
def test_placement_is_refused_by_its_shape_or_taken(part: str) -> None:
    suite = {"suite": "general"} if part == "evaluation" else {}
    for key, value in ODD_SHAPES:
        assert any(f"$.spec.{part}.{key}" in line for line in accepts(run_of(**{part: {**suite, key: value}}))), value
    assert accepts(run_of(**{part: {**suite, **TAKEN}})) == []


def test_it_is_open_only_where_kuberay_s_types_pass_through_and_in_one_key_of_the_recipe() -> None:
    free = {
        path.removeprefix(".spec.") for path, node in ALL.items() if node.get("x-kubernetes-preserve-unknown-fields")
    }
    assert free == {
        "learner.spec",
        "recipe.algorithm.rollout_rs[]",
    }


def kubernetes_own(path: str) -> bool:
    """`kubectl explain pod.spec.affinity` explains it."""
    return ".affinity." in path or ".labelSelector." in path


def test_every_key_of_the_spec_is_described() -> None:
    for path, node in ALL.items():
        if path.startswith((".spec", ".status")) and not path.endswith("[]") and not kubernetes_own(path):
            assert node.get("description"), path


def test_columns_show_what_the_status_has() -> None:
    (version,) = crd()["spec"]["versions"]
    for column in version["additionalPrinterColumns"]:
        path = column["jsonPath"]
        assert path == ".metadata.creationTimestamp" or ALL[path]["type"] == column["type"], path
    assert version["subresources"].keys() == {"status", "scale"}
    for key, path in version["subresources"]["scale"].items():
        assert ALL[path]["type"] == ("string" if key == "labelSelectorPath" else "integer")


def run_of(status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "golongrl.io/v1alpha1", "kind": "TrainingRun", **a_run(status=status, **spec)}


@pytest.mark.parametrize("name", recipes.packaged())
def test_every_packaged_recipe_may_be_written_out(name: str) -> None:
    whole = recipes.load(name).model_dump(mode="json")
    body = run_of(recipePreset="", recipe=whole)
    assert accepts(body) == []
    assert resolve(replace(SITE, recipe=whole), body).recipe == recipes.load(name)


def test_a_null_reaches_the_operator_and_removes_the_key() -> None:
    """The API server drops a null where a key is not nullable: that of a recipe has a meaning."""
    change = {"learner": {"steps": None}, "algorithm": {"rollout_is": None, "estimator": None}}
    body = run_of(recipe=change)
    assert accepts(body) == []
    for path in (".spec.recipe.learner.steps", ".spec.recipe.algorithm.rollout_is", ".spec.recipe.algorithm.estimator"):
        assert ALL[path]["nullable"] is True
    got = resolve(SITE, body).recipe
    assert (got.learner.steps, got.algorithm.estimator) == (None, "tmn_grpo")


def test_n_may_be_written_without_quotes() -> None:
    """To kubectl's YAML reader the bare key `n` is false."""
    body = run_of(recipe={"rollout": {"false": 4}})
    assert accepts(body) == []
    assert resolve(SITE, body).recipe.rollout.n == 4


def test_a_patch_of_the_learner_is_kuberays_and_may_remove_keys() -> None:
    patch = {
        "metadata": {"labels": {"team": None, "queue": "a"}},
        "spec": {"suspend": None, "rayClusterSpec": {"x": 1}},
    }
    assert accepts(run_of(learner=patch)) == []


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"recipe": {"learner": {"lrr": 1}}}, "$.spec.recipe.learner"),
        ({"recipe": {"queue": {"max_staleness": -1}}}, "$.spec.recipe.queue.max_staleness"),
        ({"recipe": {"learner": {"lr": 0}}}, "$.spec.recipe.learner.lr"),
        ({"recipe": {"algorithm": {"estimator": "ppo"}}}, "$.spec.recipe.algorithm.estimator"),
        ({"recipe": {"algorithm": {"rollout_is_clip": [1]}}}, "$.spec.recipe.algorithm.rollout_is_clip"),
        ({"learner": {"backoffLimit": 1}}, "$.spec.learner"),
        ({"learner": {"metadata": {"labels": {"a": 1}}}}, "$.spec.learner.metadata.labels.a"),
        ({"learner": {"metadata": {"name": "mine"}}}, "$.spec.learner.metadata"),
        ({"maxRestarts": -1}, "$.spec.maxRestarts"),
        ({"maxRestart": 1}, "$.spec"),
        ({"release": ""}, "$.spec.release"),
        ({"evaluation": {}}, "$.spec.evaluation"),
        ({"rollout": {"tolerations": [{"key": "a", "operater": "Exists"}]}}, "$.spec.rollout.tolerations[0]"),
        ({"rollout": {"tolerations": [{"key": "a", "effect": "NoRun"}]}}, "$.spec.rollout.tolerations[0].effect"),
        (
            {"learner": {"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "a"}]}},
            "$.spec.learner.topologySpreadConstraints[0]",
        ),
        ({"learner": {"priorityClassName": "Not A Name"}}, "$.spec.learner.priorityClassName"),
        ({"evaluation": {"suite": "no suite"}}, "$.spec.evaluation.suite"),
        # Above the release's folder on the volume.
        ({"evaluation": {"suite": "a", "data": "a/../../b"}}, "$.spec.evaluation.data"),
        ({"evaluation": {"suite": "a", "resources": {"limit": {}}}}, "$.spec.evaluation.resources"),
    ],
)
def test_what_is_wrong_is_refused_with_its_path(spec: dict[str, Any], path: str) -> None:
    (message,) = accepts(run_of(**spec))
    assert message.startswith(f"{path}: ")


def test_every_status_that_the_operator_writes_is_in_the_schema() -> None:
    run = a_run()
    worlds: list[dict[str, Any]] = [
        {},
        {"jobs": [a_job(run)], "picture": PICTURE},
        {"jobs": [a_job(run)], "silence": "the queue: no answer"},
        {"jobs": [a_job(run, jobDeploymentStatus="Failed", jobStatus="FAILED")]},
        {"jobs": [a_job(run, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")], "picture": PICTURE},
        {"pods": [Pod("p-0", "rollout", "Failed", False, 0, "", node="n", pressure="low", pressure_at=stamp(NOW))]},
    ]
    for world in worlds:
        for spec in ({}, {"suspend": True}, {"recipePreset": "nope"}):
            (outcome,) = reconcile(SITE, Seen(NOW, [a_run(**spec)], **world))
            assert accepts(run_of(status=copy.deepcopy(outcome.status))) == []
            assert bool(outcome.status["avoidedNodes"]) is ("pods" in world)


def rules() -> dict[str, list[dict[str, str]]]:
    return {path: found for path, node in ALL.items() if (found := node.get("x-kubernetes-validations"))}


@pytest.mark.parametrize(
    ("path", "self", "old", "holds"),
    [
        *(
            (f".spec.{part}.tolerations[]", toleration, None, holds)
            for part in ("rollout", "learner", "evaluation")
            for toleration, holds in (
                ({"key": "gpu"}, True),
                ({"key": "gpu", "operator": "Equal", "value": "a", "effect": "NoSchedule"}, True),
                ({"operator": "Exists"}, True),
                ({"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}, True),
                ({"key": "gpu", "operator": "Exists", "value": "a"}, False),
                ({"value": "a"}, False),
                ({"key": "", "operator": "Equal"}, False),
                ({"key": "gpu", "effect": "NoSchedule", "tolerationSeconds": 60}, False),
                ({"key": "gpu", "tolerationSeconds": 60}, False),
            )
        ),
        (".spec.release", "a", "a", True),
        (".spec.release", "b", "a", False),
        ("", {"metadata": {"name": "n" * 63}}, None, True),
        ("", {"metadata": {"name": "n" * 64}}, None, False),
        (".spec.rollout", {"minReplicas": 2, "maxReplicas": 2}, None, True),
        (".spec.rollout", {"minReplicas": 3, "maxReplicas": 2}, None, False),
        (".spec.rollout", {"replicas": 2, "maxReplicas": 2}, None, True),
        (".spec.rollout", {"replicas": 3, "maxReplicas": 2}, None, False),
        (".spec.rollout", {"minReplicas": 3}, None, True),
        (".spec", {"rollout": {"dedicated": True}}, {"rollout": {"dedicated": True}}, True),
        (".spec", {"rollout": {"dedicated": False}}, {}, True),
        (".spec", {"rollout": {"dedicated": True}}, {}, False),
        (".spec", {"rollout": {}}, {"rollout": {"dedicated": True}}, False),
        (".spec", {}, {"rollout": {"dedicated": True}}, False),
        (".spec.evaluation.args", ["--limit", "5", "--judge", "none"], None, True),
        (".spec.evaluation.args", ["--targets", "--steps"], None, True),
        (".spec.evaluation.args", ["--limit", "5", "--target", "x"], None, False),
        (".spec.evaluation.args", ["--out=/tmp"], None, False),
        (".spec.evaluation.args", ["--last"], None, False),
        (".spec.rollout.engineArgs", ["--configs", "--x=--config"], None, True),
        (".spec.rollout.engineArgs", ["--config", "x"], None, False),
    ],
)
def test_cel_rules(path: str, self: Any, old: Any, holds: bool) -> None:
    assert all(cel.evaluate(rule["rule"], {"self": self, "oldSelf": old}) for rule in rules()[path]) is holds


def test_every_cel_rule_is_tested_and_says_which_key() -> None:
    tolerations = {f".spec.{part}.tolerations[]" for part in PLACED}
    assert set(rules()) == {
        ".spec.release",
        ".spec",
        ".spec.rollout",
        ".spec.evaluation.args",
        ".spec.rollout.engineArgs",
        "",
        *tolerations,
    }
    keys = {key for found in rules().values() for rule in found for key in [rule["message"].split()[0].strip(":")]}
    assert keys == {
        "release",
        "metadata.name",
        "rollout.minReplicas",
        "rollout.replicas",
        "rollout.dedicated",
        "evaluation.args",
        "rollout.engineArgs",
        "tolerations",
    }


@pytest.mark.parametrize("path", rules())
def test_the_cost_of_a_rule_is_bounded(path: str) -> None:
    """The API server estimates it from the largest object, and refuses a definition without bounds."""
    for at, node in ALL.items():
        # Lists around the rule, and what it may read: everything of the node and of the keys it names.
        around = f"{at}[]" == path or f"{at}[]." in path
        if around or (at == path and node["type"] == "array"):
            assert node.get("maxItems"), at
    for rule in rules()[path]:
        for key in re.findall(r"(?:self|oldSelf)\.(\w+)", rule["rule"]):
            node = ALL.get(f"{path}.{key}", {"type": "object"})
            assert node["type"] != "string" or "maxLength" in node or "enum" in node, key
    node = ALL[path]
    assert node["type"] != "string" or "maxLength" in node
    assert node["type"] != "array" or node["items"]["type"] != "string" or "maxLength" in node["items"]


def test_no_description_is_that_of_a_type_where_the_key_has_its_own() -> None:
    assert ALL[".spec.evaluation"]["description"].startswith("Benchmarks for the run's last checkpoint")
    assert "operator.gpuBudget" in ALL[".spec.evaluation.resources"]["description"]
    mine = {path: node for path, node in ALL.items() if path.startswith(".spec.") and not path.endswith("[]")}
    words = {
        path: node["description"].split()
        for path, node in mine.items()
        if not ("recipe." in path or kubernetes_own(path))
    }
    assert {path for path, said in words.items() if len(said) < 4} == set()


def test_helm_installs_it_where_the_operator_is_on_and_only_there() -> None:
    for name in ("helm3", "helm4"):
        helm = Helm(tool(name))
        for switch, there in (("false", False), ("true", True)):
            done = helm.run(
                "template", "demo", str(CHART), "--include-crds", "--api-versions", "ray.io/v1/RayJob",
                "--set", f"operator.enabled={switch}",
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            assert ("kind: CustomResourceDefinition" in done.stdout) is there
