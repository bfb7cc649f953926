"""Two releases in one namespace: other names, and no selector of one chooses a pod or a series of the other."""

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.api_http import serving
from support.api_server import ApiServer
from support.chart_values import MATRIX
from support.helm import CHART, Helm, Manifest, Rendered, pod_specs

EVERYTHING: Manifest = {
    "operator": {"enabled": True},
    "evaluation": {"enabled": True},
    "construction": {"enabled": True, "passrate": {"enabled": True}},
    "redis": {"pdb": {"enabled": True}},
    "learner": {"pdb": {"enabled": True}},
    "metrics": {"monitors": {"enabled": True}, "rules": {"enabled": True}},
}
PAIRS = (
    ("golongrl", "golongrl-learner"), ("golongrl", "golongrl-rollout-2"), ("golongrl", "golongrl-golongrl"),
    ("a", "a-learner"), ("a", "a-golongrl-reward"), (f"golongrl-{'x' * 44}", f"golongrl-{'x' * 43}y"),
)  # fmt: skip
# A ReplicaSet, a LeaderWorkerSet, a RayJob, a StatefulSet, a pool of a run's own: what follows the workload's name.
SUFFIXES = ("7d9f8b6c5d-x2x4z", "0-1", "1a2b3c4d-k2k9q-head-b7w4x", "0", "1a2b3c4d-7d9f8b6c5d-x2x4z")
COMPONENTS = ("redis", "reward", "rollout", "learner", "passrate", "evaluation", "data")


def selectors(objects: Rendered) -> Iterator[tuple[str, dict[str, str]]]:
    for item in objects:
        spec, name = item.get("spec", {}), f"{item['kind']}/{item['metadata']['name']}"
        match item["kind"]:
            case "Service":
                yield name, spec["selector"]
            case "NetworkPolicy":
                yield name, spec["podSelector"]["matchLabels"]
            case "PodDisruptionBudget" | "Deployment" | "StatefulSet" | "ServiceMonitor" | "PodMonitor":
                yield name, spec["selector"]["matchLabels"]


def prefix(objects: Rendered) -> str:
    return str(objects.one("StatefulSet")["metadata"]["name"]).removesuffix("-redis")


@pytest.mark.parametrize(
    ("one", "other"), [*PAIRS, *((other, one) for one, other in PAIRS)], ids=lambda name: name[:20]
)
def test_no_selector_of_a_release_chooses_a_pod_of_another(helm4: Helm, one: str, other: str) -> None:
    mine, theirs = (helm4.template(EVERYTHING, release=name) for name in (one, other))
    names = [{(item["kind"], item["metadata"]["name"]) for item in objects} for objects in (mine, theirs)]
    assert not names[0] & names[1]
    for name, selector in selectors(mine):
        chosen = [pod for pod, metadata, _ in pod_specs(theirs) if selector.items() <= metadata["labels"].items()]
        assert not chosen, name
    rules = json.dumps([item["spec"] for item in mine.of("PrometheusRule")]).replace('\\"', '"')
    matchers = set(re.findall(r'pod=~"([^"]*)",pod!~"([^"]*)"', rules))
    assert len(matchers) >= 3
    for component, suffix in itertools.product(COMPONENTS, SUFFIXES):
        their, my = (f"{prefix(objects)}-{component}-{suffix}" for objects in (theirs, mine))
        assert not [wanted for wanted, not_ in matchers if _matches(wanted, not_, their)], their
        mine_too = [wanted for wanted, not_ in matchers if _matches(wanted, not_, my)]
        assert len(mine_too) == (component in ("reward", "rollout", "learner")), my


def _matches(wanted: str, unwanted: str, pod: str) -> bool:
    return bool(re.fullmatch(wanted, pod)) and not re.fullmatch(unwanted, pod)


@pytest.mark.parametrize(("first", "second"), [("demo", "demo-golongrl")])
def test_a_release_whose_objects_have_the_names_of_another_is_refused(
    helm4: Helm, tmp_path: Path, first: str, second: str
) -> None:
    with serving(ApiServer()) as server:
        server.create_namespace("rl")
        where = ["--kubeconfig", str(server.kubeconfig(tmp_path / "kubeconfig")), "-n", "rl"]
        assert helm4.run("install", first, str(CHART), *where).returncode == 0
        before = set(server.objects)
        refused = helm4.run("install", second, str(CHART), *where)
        assert refused.returncode != 0
        assert f'must equal "{second}": current value is "{first}"' in refused.stderr
        assert set(server.objects) == before


@pytest.mark.parametrize("word", ["yes", "null", "on"])
def test_a_prefix_that_yaml_reads_as_something_else_stays_a_name(helm4: Helm, word: str) -> None:
    objects = helm4.template({**MATRIX["everything-observed"], "fullnameOverride": word})
    assert {type(item["metadata"]["name"]) for item in objects} == {str}
    assert objects.one("PrometheusRule")["metadata"]["name"] == word
