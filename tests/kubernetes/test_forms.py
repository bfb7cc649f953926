"""What has its form stays as it is; what has another one is absent, and takes nothing else with it."""

from typing import Any

import pytest

from golongrl.kubernetes.forms import fit, fit_object, fit_picture, moment, name, number, text
from golongrl.kubernetes.look.pods import read_pods
from support.training_runs import PICTURE

POD: dict[str, Any] = {
    "kind": "Pod",
    "metadata": {
        "name": "p", "uid": "u", "labels": {"a": "b"}, "creationTimestamp": "2026-01-01T00:00:00Z",
        "ownerReferences": [{"kind": "ReplicaSet", "name": "rs", "uid": "v", "controller": True}],
    },
    "spec": {"nodeName": "n", "other": [1, {"x": None}]},
    "status": {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        "containerStatuses": [{"name": "c", "restartCount": 2, "ready": True, "state": {"running": {}}}],
    },
}  # fmt: skip


def test_what_has_its_form_stays_as_it_is() -> None:
    assert fit_object("Pod", POD) == POD
    told = PICTURE | {"queue": PICTURE["queue"] | {"rows": 3, "unknown": ["x"]}}  # type: ignore[operator]
    assert fit_picture(told) == told


@pytest.mark.parametrize("odd", [None, "x", 3, [], [{}], {"a": 1}, True, float("nan")])
@pytest.mark.parametrize("place", ["metadata.labels", "metadata.ownerReferences", "spec", "status", "status.conditions",
                                   "status.containerStatuses", "status.phase", "status.containerStatuses.0.state",
                                   "status.containerStatuses.0.restartCount"])  # fmt: skip
def test_an_odd_part_takes_no_other_with_it(odd: Any, place: str) -> None:
    item = fit(POD, lambda _: True)
    item = {**item, "metadata": {**POD["metadata"]}, "status": {**POD["status"]}}
    item["status"]["containerStatuses"] = [dict(POD["status"]["containerStatuses"][0])]
    node: Any = item
    *way, last = place.split(".")
    for key in way:
        node = node[int(key)] if isinstance(node, list) else node[key]
    node[last] = odd
    found = fit_object("Pod", item)
    assert found is not None
    (pod,) = read_pods([found])
    assert pod.name == "p"


@pytest.mark.parametrize("item", [None, [], "x", {}, {"metadata": None}, {"metadata": {"name": ""}}, {"metadata": {}}])
def test_an_object_without_a_name_is_none(item: Any) -> None:
    assert fit_object("Pod", item) is None


@pytest.mark.parametrize(
    "change",
    [
        {"version": "12"}, {"version": -1}, {"version": 2**70}, {"bytes": float("inf")}, {"staleness": {"x": 1}},
        {"staleness": [1]}, {"max_staleness": None},
    ],
)  # fmt: skip
def test_a_picture_without_its_counters_is_none(change: dict[str, Any]) -> None:
    assert fit_picture(PICTURE | {"queue": PICTURE["queue"] | change}) is None  # type: ignore[operator]


def test_odd_parts_of_a_picture_are_absent() -> None:
    told = {
        "queue": PICTURE["queue"] | {"blocking": {"uid": 3}, "weights": "x", "stopped": []},  # type: ignore[operator]
        "services": [
            {"service": "learner"},
            {"service": "rollout", "id": "a", "age_s": 1, "fields": {"a": "b", "c": 3}},
        ],
    }
    found = fit_picture(told)
    assert found is not None
    assert found["services"] == [{"service": "rollout", "id": "a", "age_s": 1, "fields": {"a": "b"}}]
    assert not {"blocking", "weights", "stopped"} & found["queue"].keys()


def test_what_a_value_is() -> None:
    assert [text("ü\n"), text("\ud800"), text(None), name("")] == [True, False, False, False]
    assert [number(-1.5), number(float("nan")), number(True), number(1e30)] == [True, False, False, False]
    times = ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00+02:00", "2026-01-01T00:00:00", "soon", 3]
    assert [moment(time) for time in times] == [True, True, False, False, False]
