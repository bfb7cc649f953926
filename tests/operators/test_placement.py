"""Placement and resources that the API server would refuse pod by pod: the run says so at once, and nothing is made."""

import copy
from dataclasses import replace
from typing import Any

import pytest

from golongrl_operator.api import Spec
from golongrl_operator.build import resolve
from golongrl_operator.cases import Seen
from golongrl_operator.decide import RunPhase
from golongrl_operator.reconcile import reconcile
from support.placements import MISFITS, ODD_SHAPES, TAKEN
from support.training_runs import NOW, SITE, a_run, one

POD = {"spec": {"containers": [{"name": "ray-worker", "image": "x"}]}}
PARTS = ("rollout", "learner", "evaluation")
ODD = [*ODD_SHAPES, *((key, value) for key, value, _ in MISFITS)]
PLACED = [(key, value) for key, value in ODD if key != "resources"]


def said(**spec: Any) -> str:
    """The message of a run that means nothing, and for which nothing is done."""
    outcome = one(a_run(**spec))
    assert outcome.status["phase"] == RunPhase.INVALID
    assert (outcome.apply, outcome.pool.apply, outcome.pool.scale) == ((), (), {})
    accepted = outcome.status["conditions"][0]
    assert (accepted["type"], accepted["status"], accepted["reason"]) == ("Accepted", "False", "InvalidSpec")
    assert "\n" not in accepted["message"]
    return str(accepted["message"])


def of_suite(part: str, **keys: Any) -> dict[str, Any]:
    return {part: {**({"suite": "general"} if part == "evaluation" else {}), **keys}}


@pytest.mark.parametrize(("key", "value"), PLACED, ids=lambda item: str(item)[:60])
def test_a_placement_that_no_pod_may_have_is_refused_with_its_key(key: str, value: Any) -> None:
    for part in PARTS:
        message = said(**of_suite(part, **{key: value}))
        assert message.startswith(("spec.", "spec: "))
        assert f"{part}.{key}" in message


def in_workers(key: str, value: Any) -> dict[str, Any]:
    """A patch of the RayJob."""
    container = {"name": "ray-worker", **({key: value} if key == "resources" else {})}
    spec = {"containers": [container], **({key: value} if key != "resources" else {})}
    return {"spec": {"rayClusterSpec": {"workerGroupSpecs": [{"groupName": "ranks", "template": {"spec": spec}}]}}}


@pytest.mark.parametrize(("key", "value"), ODD, ids=lambda item: str(item)[:60])
def test_a_patch_of_the_rayjob_is_read_as_the_api_server_reads_its_pods(key: str, value: Any) -> None:
    message = said(learner=in_workers(key, value))
    assert message.startswith("spec.learner: RayJob: ")
    assert "workerGroupSpecs.0.template.spec." in message
    assert key in message


@pytest.mark.parametrize(("key", "value", "words"), [one for one in MISFITS if one[0] == "resources"])
def test_resources_of_an_evaluation(key: str, value: Any, words: str) -> None:
    assert words in said(**of_suite("evaluation", resources=value))


MORE = {"name": "x", "image": "i"}


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        ({"containers": [{**MORE, "name": "a_b"}]}, "containers.1.name"),
        ({"containers": [{**MORE, "volumeMounts": [{"name": "gone", "mountPath": "/a"}]}]}, "is no volume gone"),
        (
            {"containers": [{**MORE, "volumeMounts": [{"name": "tmp", "mountPath": "/a"}] * 2}]},
            "containers.x.volumeMounts: /a stands there twice",
        ),
        ({"initContainers": [{**MORE, "name": "ray-worker"}]}, "containers: ray-worker stands there twice"),
        ({"containers": [{**MORE, "env": [{"name": "A=B"}]}]}, "containers.1.env.0.name"),
        ({"containers": [{**MORE, "env": [{"name": "A", "value": 1}]}]}, "containers.1.env.0.value"),
        (
            {"containers": [{"name": "x"}]},
            "missing key spec.rayClusterSpec.workerGroupSpecs.0.template.spec.containers.1.image",
        ),
        ({"containers": [{"name": "x", "image": ""}]}, "containers.1.image"),
        ({"containers": [{"name": "x", "image": " i"}]}, "containers.1.image"),
        ({"volumes": [{"name": "No"}]}, "volumes.2.name"),
        (
            {"volumes": [{"name": "a", "emptyDir": {}, "hostPath": {"path": "/"}}]},
            "volumes.a: has more than one source: emptyDir, hostPath",
        ),
        ({"volumes": [{"name": "a", "persistentVolumeClaim": {"claimName": "A b"}}]}, "claimName"),
        ({"volumes": [{"name": "tmp", "persistentVolumeClaim": {"claimName": "a"}}]}, "volumes.tmp: has more than one"),
        ({"containers": [{**MORE, "volumeMounts": [{"name": "tmp", "mountPath": "a:b"}]}]}, "volumeMounts.0.mountPath"),
        (
            {"containers": [{**MORE, "volumeMounts": [{"name": "tmp", "mountPath": "/a", "subPath": "../b"}]}]},
            "volumeMounts.0.subPath: '../b' is not a path inside the volume",
        ),
        ({"containers": [{**MORE, "ports": [{"containerPort": 0}]}]}, "ports.0.containerPort"),
        ({"containers": [{**MORE, "ports": [{"containerPort": 1, "name": "Http"}]}]}, "ports.0.name"),
        ({"containers": [{**MORE, "ports": [{"containerPort": 1, "name": "a" * 16}]}]}, "ports.0.name"),
        ({"containers": [{**MORE, "ports": [{"containerPort": 1, "protocol": "tcp"}]}]}, "ports.0.protocol"),
        (
            {"containers": [{**MORE, "ports": [{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]}]},
            "containers.x.ports: a stands there twice",
        ),
        ({"containers": [{**MORE, "imagePullPolicy": "Sometimes"}]}, "containers.1.imagePullPolicy"),
        ({"imagePullSecrets": [{"name": "A b"}]}, "imagePullSecrets.0.name"),
        ({"serviceAccountName": "A b"}, "serviceAccountName"),
        ({"restartPolicy": "Sometimes"}, "restartPolicy"),
        ({"nodeSelector": {"a": "b c"}}, "nodeSelector.a"),
        ({"priorityClassName": "A b"}, "priorityClassName"),
        ({"containers": 5}, "containers"),
    ],
)
def test_names_and_volumes_of_a_patched_pod(pod: dict[str, Any], words: str) -> None:
    template = {"groupName": "ranks", "template": {"spec": pod}}
    assert words in said(learner={"spec": {"rayClusterSpec": {"workerGroupSpecs": [template]}}})


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({}, "needs exactly one source"),
        ({"secretKeyRef": None}, "needs exactly one source"),
        ({"secretKeyRef": {"name": "a", "key": "b"}, "fieldRef": {"fieldPath": "metadata.name"}}, "exactly one source"),
        ({"secretKeyRef": {"name": "a"}}, "valueFrom.secretKeyRef.key"),
        ({"secretKeyRef": {"key": "a"}}, "valueFrom.secretKeyRef.name"),
        ({"secretKeyRef": {"name": "A b", "key": "a"}}, "valueFrom.secretKeyRef.name"),
        ({"secretKeyRef": {"name": "a", "key": "a/b"}}, "valueFrom.secretKeyRef.key"),
        ({"secretKeyRef": {"name": "a", "key": ".."}}, "valueFrom.secretKeyRef.key"),
        ({"secretKeyRef": {"name": "a", "key": "b", "optional": "yes"}}, "valueFrom.secretKeyRef.optional"),
        ({"configMapKeyRef": {"name": "a", "key": ""}}, "valueFrom.configMapKeyRef.key"),
        ({"secretRef": {"name": "a"}}, "valueFrom.secretRef"),
        ({"fieldRef": {"fieldPath": "metadata.labels"}}, "valueFrom.fieldRef.fieldPath"),
        ({"fieldRef": {"fieldPath": "spec.replicas"}}, "valueFrom.fieldRef.fieldPath"),
        ({"fieldRef": {"fieldPath": "metadata.name", "apiVersion": "v2"}}, "valueFrom.fieldRef.apiVersion"),
        ({"resourceFieldRef": {"resource": "cpu"}}, "valueFrom.resourceFieldRef.resource"),
        ({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1Mi"}}, "1Mi does not fit limits.cpu"),
        ({"resourceFieldRef": {"resource": "limits.memory", "divisor": "1m"}}, "1m does not fit limits.memory"),
        ({"resourceFieldRef": {"resource": "limits.cpu", "containerName": "gone"}}, "there is no container gone"),
        ({"fileKeyRef": {"volumeName": "gone", "path": "a", "key": "b"}}, "there is no volume gone"),
        ("x", "valueFrom"),
        ([], "valueFrom"),
    ],
)
def test_sources_of_variables_of_a_patched_pod(source: Any, words: str) -> None:
    """The pods would be refused, or never start, and nothing would say so of the run."""
    pod = {"containers": [{"name": "ray-worker", "env": [{"name": "A", "valueFrom": source}]}]}
    template = {"groupName": "ranks", "template": {"spec": pod}}
    assert words in said(learner={"spec": {"rayClusterSpec": {"workerGroupSpecs": [template]}}})


@pytest.mark.parametrize(
    ("container", "words"),
    [
        (
            {"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]},
            "env.A: has a value and valueFrom",
        ),
        ({"envFrom": [{}]}, "envFrom.0: needs exactly one source"),
        ({"envFrom": [{"secretRef": {"name": "a"}, "configMapRef": {"name": "b"}}]}, "envFrom.0: needs exactly one"),
        ({"envFrom": [{"secretRef": {}}]}, "envFrom.0.secretRef.name"),
        ({"envFrom": [{"configMapRef": {"name": "A b"}}]}, "envFrom.0.configMapRef.name"),
    ],
)
def test_variables_of_a_patched_pod(container: dict[str, Any], words: str) -> None:
    pod = {"containers": [{"name": "ray-worker", **container}]}
    template = {"groupName": "ranks", "template": {"spec": pod}}
    assert words in said(learner={"spec": {"rayClusterSpec": {"workerGroupSpecs": [template]}}})


GROUP = "spec.learner: RayJob: spec.rayClusterSpec.workerGroupSpecs.0."


@pytest.mark.parametrize(
    ("group", "path"),
    [
        ({"numOfHosts": "n"}, "numOfHosts"),
        ({"numOfHosts": {}}, "numOfHosts"),
        ({"numOfHosts": 0}, "numOfHosts"),
        ({"replicas": 2**70}, "replicas"),
        ({"template": {"metadata": "x"}}, "template.metadata"),
        ({"template": {"metadata": {"labels": [None]}}}, "template.metadata.labels"),
        ({"template": {"metadata": {"labels": {"a": 1}}}}, "template.metadata.labels.a"),
        ({"template": {"metadata": {"labels": {"a b": "c"}}}}, "template.metadata.labels.a b"),
        ({"template": {"metadata": {"annotations": [{}]}}}, "template.metadata.annotations"),
        ({"template": {"spec": {"terminationGracePeriodSeconds": "1"}}}, "template.spec.terminationGracePeriodSeconds"),
        ({"template": {"spec": {"volumes": {"a": 1}}}}, "template.spec.volumes"),
        *(
            (
                {"template": {"spec": {"containers": [{**MORE, "resources": {"limits": {"cpu": amount}}}]}}},
                "template.spec.containers.1.resources.limits.cpu",
            )
            for amount in ("9" * 5000, "1e1000000000", 2**200, -1, 1.5, True, "1,5", " 1", "\u0663", [], {"a": 1})
        ),
        ({"template": "x"}, "template"),
    ],
)
def test_a_part_of_another_type_stops_no_other_run(group: dict[str, Any], path: str) -> None:
    """It is merged into the RayJob as it is, and the operator reads it there."""
    patch = {"spec": {"rayClusterSpec": {"workerGroupSpecs": [{"groupName": "ranks", **group}]}}}
    odd = a_run("odd", 1, learner=patch, rollout={"dedicated": True}, schedule={"queue": "q"})
    first, second = reconcile(SITE, Seen(NOW, [odd, a_run("good", 2)]))
    assert first.status["message"].startswith(f"{GROUP}{path}: ")
    assert second.status["phase"] == RunPhase.PENDING
    assert second.apply


def test_a_group_without_a_name_and_a_key_of_two_lines() -> None:
    nameless = {"spec": {"rayClusterSpec": {"workerGroupSpecs": [{"replicas": 1}]}}}
    assert "missing key spec.rayClusterSpec.workerGroupSpecs.0.groupName" in said(learner=nameless)
    assert "unknown key rollout.tolerations.0.a\\nb" in said(rollout={"tolerations": [{"key": "x", "a\nb": 1}]})


def test_the_submitter_and_the_head_are_read_too() -> None:
    """A null is a key that is not there."""
    odd = {"tolerations": [{"effect": "NoExecute", "key": None}]}
    submitter = {"metadata": {}, "spec": {"containers": [{"name": "s", "image": "i"}], **odd}}
    assert "spec.submitterPodTemplate.spec.tolerations.0:" in said(
        learner={"spec": {"submitterPodTemplate": submitter}}
    )
    head = {"rayClusterSpec": {"headGroupSpec": {"template": {"spec": odd}}}}
    assert "headGroupSpec.template.spec.tolerations.0:" in said(learner={"spec": head})


@pytest.mark.parametrize("part", PARTS)
def test_what_the_api_server_takes_is_taken(part: str) -> None:
    meaning = resolve(SITE, a_run(**of_suite(part, **TAKEN)))
    assert isinstance(meaning.spec, Spec)
    patched = {"groupName": "ranks", "template": {"spec": TAKEN | {"schedulerName": "x", "containers": [{
        "name": "ray-worker", "resources": {"claims": [{"name": "gpu"}], "limits": {"cpu": "1.5"}},
        "env": [{"name": "a.b", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "c", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m",
                                                                 "containerName": "ray-worker"}}}],
        "envFrom": [{"secretRef": {"name": "s"}, "prefix": "P_"}],
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}], "livenessProbe": None,
    }]}}}  # fmt: skip
    resolve(SITE, a_run(learner={"spec": {"rayClusterSpec": {"workerGroupSpecs": [patched]}}}))


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"schedule": {"queue": "My Queue"}}, "schedule.queue"),
        ({"reward": {"url": "http:// x"}}, "reward.url"),
        ({"reward": {"url": "http://x\ny"}}, "reward.url"),
        ({"reward": {"url": "https://"}}, "reward.url"),
        ({"rollout": {"engineArgs": ["a\0b"]}}, "rollout.engineArgs.0"),
    ],
)
def test_texts_that_nothing_could_use(spec: dict[str, Any], path: str) -> None:
    assert f"spec: {path}: " in said(**spec)


def test_a_suite_that_there_is_not_is_named_before_the_run_trains() -> None:
    message = said(evaluation={"suite": "genral"})
    assert message.startswith("spec.evaluation.suite: 'genral' is none of table, long-context, general, memory, paper,")
    resolve(SITE, a_run(evaluation={"suite": "mrcr-128k"}))
    job = copy.deepcopy(SITE.evaluation)
    job["spec"]["template"]["spec"]["containers"][0]["image"] = "ghcr.io/mine/eval:1"
    resolve(replace(SITE, evaluation=job), a_run(evaluation={"suite": "my-own.yaml"}))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"rollout": {"engineArgs": ["--x", "--config=y"]}}, "spec.rollout.engineArgs: --config=y: the chart or the"),
        ({"evaluation": {"suite": "table", "args": ["--out"]}}, "spec.evaluation.args: --out: the chart or the"),
        (
            {"learner": {"spec": {"rayClusterSpec": {"workerGroupSpecs": [{"groupName": "head", "template": POD}]}}}},
            "spec.learner: RayJob: spec.rayClusterSpec.workerGroupSpecs.1.groupName: KubeRay calls the head head;",
        ),
    ],
)
def test_what_the_chart_or_kuberay_has_taken_is_named(spec: dict[str, Any], message: str) -> None:
    assert said(**spec).startswith(message)
