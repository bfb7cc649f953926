"""The Python builder and the chart's template give the same RayJob, whatever the values."""

from typing import Any

import pytest

from golongrl.kubernetes.rayjob import naming
from golongrl.kubernetes.rayjob.builder import ValuesError, rayjob
from golongrl.kubernetes.rayjob.load import load_values, recipe_of
from golongrl.kubernetes.rayjob.naming import Release
from golongrl.kubernetes.rayjob.render import chart
from golongrl.kubernetes.values import Values
from support.chart_values import MATRIX, PRESETS, RAYJOBS
from support.helm import Helm, Manifest


def built(values: Values, release: Release, suffix: str) -> Manifest:
    return rayjob(recipe_of(values), values, release, suffix)


def assert_same(rendered: Manifest, values: Values, release: Release) -> None:
    suffix = rendered["metadata"]["name"].rpartition("-")[2]
    own = built(values, release, suffix)
    assert own["spec"] == rendered["spec"]
    assert own["metadata"]["name"] == rendered["metadata"]["name"]
    assert own["metadata"]["labels"].items() <= rendered["metadata"]["labels"].items()


@pytest.mark.parametrize("name", RAYJOBS)
def test_chart_and_builder_agree_on_every_switch(helm4: Helm, name: str) -> None:
    job = helm4.template(MATRIX[name]).one("RayJob")
    assert_same(job, load_values(overrides=MATRIX[name]), Release("demo", "rl"))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("overlay", [(), ("values-rdma.yaml",)], ids=["ethernet", "rdma"])
def test_chart_and_builder_agree_on_every_preset(helm4: Helm, preset: str, overlay: tuple[str, ...]) -> None:
    files = (preset, *overlay)
    job = helm4.template(files=files).one("RayJob")
    assert_same(job, load_values([chart() / name for name in files]), Release("demo", "rl"))


@pytest.mark.parametrize(
    ("release", "values"),
    [
        ("demo", {}),
        ("my-golongrl", {}),
        ("4b", {}),
        ("a.b", {}),
        ("r" * 53, {}),
        ("r" * 52 + "s", {}),
        ("demo", {"nameOverride": "rl"}),
        ("demo", {"fullnameOverride": "a-name-that-is-longer-than-thirty-characters"}),
    ],
)
def test_chart_and_builder_agree_on_names(helm4: Helm, release: str, values: dict[str, Any]) -> None:
    job = helm4.template(values, release=release).one("RayJob")
    checked = load_values(overrides=values)
    assert_same(job, checked, Release(release, "rl"))
    assert len(naming.fullname(Release(release), checked)) <= 30


def test_gpus_that_are_not_the_ranks_are_refused_by_both(helm4: Helm) -> None:
    wrong = {"learner": {"workers": {"replicas": 2, "gpus": 8}}}
    message = "learner.workers: 2 replicas x 8 gpus are not the recipe's learner.ranks 1"
    assert message in helm4.refusal(wrong)
    with pytest.raises(ValuesError) as error:
        built(load_values(overrides=wrong), Release(), "x")
    assert str(error.value) == message
