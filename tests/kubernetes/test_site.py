"""A run's RayJob from the release's: patched as kubectl patches, checked against its recipe, named by what it runs."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl import recipe as recipes
from golongrl.kubernetes.rayjob.render import preset
from golongrl.kubernetes.rayjob.site import RayJobError, check, content, documents, patch
from support.training_runs import RAYJOB

QUICKSTART = recipes.load("quickstart")
TREES = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("base", "over", "result"),
    [
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}, {"a": {"c": 2}}),
        ({"a": 1}, {"a": {"b": None, "c": 3}}, {"a": {"c": 3}}),
        ([1, 2], [3], [3]),
        ([{"name": "x", "v": 1}, {"name": "y"}], [{"name": "x", "v": 2}], [{"name": "x", "v": 2}, {"name": "y"}]),
        ([{"name": "x"}], [{"name": "z", "v": 1}], [{"name": "x"}, {"name": "z", "v": 1}]),
        ([{"groupName": "g", "replicas": 1}], [{"groupName": "g", "replicas": 4}], [{"groupName": "g", "replicas": 4}]),
        # Entries without names replace the list, as tolerations do.
        ([{"key": "a"}], [{"key": "b"}], [{"key": "b"}]),
        ([{"name": "x"}], [], [{"name": "x"}]),
        ([], [{"name": "x", "v": None}], [{"name": "x"}]),
        (None, {"a": [1]}, {"a": [1]}),
        ({"a": 1}, 5, 5),
    ],
)
def test_a_patch_merges_as_kubectl_does(base: Any, over: Any, result: Any) -> None:
    before = copy.deepcopy((base, over))
    assert patch(base, over) == result
    assert (base, over) == before, "neither is changed"


@given(TREES, TREES)
def test_a_patch_applied_twice_is_applied_once(base: Any, over: Any) -> None:
    once = patch(base, over)
    assert patch(once, over) == once


@given(TREES)
def test_an_empty_patch_changes_nothing(base: Any) -> None:
    if isinstance(base, dict):
        assert patch(base, {}) == base


def test_the_name_follows_the_identity_and_nothing_is_shared() -> None:
    first, second = documents(RAYJOB, QUICKSTART, "rl", "a"), documents(RAYJOB, QUICKSTART, "rl", "b")
    assert first[1]["metadata"]["name"] != second[1]["metadata"]["name"]
    assert first == documents(RAYJOB, QUICKSTART, "rl", "a")
    first[1]["spec"].clear()
    first[0]["metadata"]["labels"].clear()
    assert RAYJOB["spec"]
    assert RAYJOB["metadata"]["labels"]
    assert "namespace" not in documents(RAYJOB, QUICKSTART, "", "a")[0]["metadata"]


def test_the_content_is_all_that_runs() -> None:
    same = content(RAYJOB, QUICKSTART)
    assert content(patch(RAYJOB, {"metadata": {"name": "other", "namespace": "x"}}), QUICKSTART) == same
    for change in (
        {"spec": {"entrypoint": "x"}},
        {"metadata": {"labels": {"queue": "a"}}},
        {"metadata": {"annotations": {"a": "b"}}},
    ):
        assert content(patch(RAYJOB, change), QUICKSTART) != same
    assert content(RAYJOB, recipes.load("quickstart", ["learner.steps=7"])) != same


@pytest.mark.parametrize("spec", [None, [], "x", {"entrypoint": ""}, {"rayClusterSpec": []}, {"rayClusterSpec": {}}])
def test_what_is_no_rayjob_is_one_line(spec: Any) -> None:
    with pytest.raises(RayJobError) as error:
        check(patch(RAYJOB, {"spec": None}) | {"spec": spec}, QUICKSTART, "nvidia.com/gpu")
    assert str(error.value).startswith("RayJob: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        ("qwen3-4b-grpo", "values-qwen3-4b.yaml"),
        ("qwen3-4b-tmn-reweight", "values-qwen3-4b.yaml"),
        ("qwen3-30b-a3b-grpo", "values-qwen3-30b-a3b-grpo.yaml"),
        ("quickstart", None),
        ("smollm2-135m", None),
        ("gpu", None),
        ("qwen3-4b", None),
        ("mine.yaml", None),
    ],
)
def test_a_preset_is_that_of_the_longest_name(recipe: str, name: str | None) -> None:
    found = preset(recipe)
    assert (found.name if found else None) == name
