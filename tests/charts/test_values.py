"""The chart's interface: one source, complete, and strict at `helm install`."""

import json
import math
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typing_extensions import is_typeddict

from golongrl import recipe as recipes
from golongrl.kubernetes.rayjob.load import ValuesError, load_values, recipe_of
from golongrl.kubernetes.values import Values, environment, shapes
from golongrl.learner.known_models import SHAPES
from golongrl.learner.memory import estimate
from golongrl.recipe import RecipeError
from support.chart_values import MATRIX, PRESETS
from support.helm import CHART, Helm

MIB = 1 << 20
# Whose keys are described by Kubernetes.
KUBERNETES = {name for room in (environment, shapes) for name, kind in vars(room).items() if is_typeddict(kind)}
# Objects of any kind, and what a parent chart shares with its other charts.
OPEN = {"ExtraObject", "Global", "ObjectMetadata"}


def test_the_defaults_are_those_of_the_models() -> None:
    assert load_values([CHART / "values.yaml"]) == Values()


def test_every_key_is_described_and_every_object_of_ours_closed() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    nodes = {"values": schema, **schema["definitions"]}
    for name, node in nodes.items():
        assert node.get("description"), name
        assert node["additionalProperties"] is (name in OPEN), name
        if name in KUBERNETES:
            continue
        for key, item in node["properties"].items():
            described = item.get("description") or nodes[item.get("$ref", "").rpartition("/")[2]]["description"]
            assert described, f"{name}.{key}"


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"rollout": {"replicaz": 2}}, "rollout"),
        ({"rollout": {"engine": {"kinds": "sglang"}}}, "rollout/engine"),
        ({"redis": {"image": {"digest": "latest"}}}, "redis/image/digest"),
        ({"recipe": {"learner": {"learning_rate": 1e-6}}}, "recipe/learner"),
        ({"recipe": {"queue": {"max_staleness": -1}}}, "recipe/queue/max_staleness"),
        ({"learner": {"submissionMode": "Sidecar"}}, "learner/submissionMode"),
        ({"storage": {"accessModes": ["RWX"]}}, "storage/accessModes/0"),
    ],
)
def test_a_wrong_value_fails_with_its_path(helm: Helm, values: dict[str, Any], path: str) -> None:
    message = helm.refusal(values)
    assert re.search(path.replace("/", r"[./]"), message), message
    leaf = _leaf(values)
    assert leaf in message, message


def _leaf(values: Any) -> str:
    key = ""
    while isinstance(values, dict):
        ((key, values),) = values.items()
    return key


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"recipePreset": "qwen3-5b"}, 'the chart has no recipe "qwen3-5b"'),
        ({"recipePreset": "", "recipe": {"name": "x"}}, "recipe.model is missing"),
        ({"recipe": {"model": {"context_length": None}}}, "recipe.model.context_length is missing"),
        ({"rollout": {"nodes": 2}}, "the embedded engine runs on one node"),
        ({"rollout": {"nodes": 3, "engine": {"kind": "sglang", "tensorParallel": 8}}}, "does not divide"),
        ({"learner": {"gang": {"scheduler": "kueue"}}}, "learner.gang.queue names no queue"),
    ],
)
def test_values_that_do_not_fit_each_other_are_refused_in_words(
    helm: Helm, values: dict[str, Any], message: str
) -> None:
    assert message in helm.refusal(values)


def test_gpu_ranks_need_kuberay(helm4: Helm) -> None:
    values = {"recipe": {"learner": {"ranks": 16}}, "learner": {"workers": {"replicas": 2, "gpus": 8}}}
    assert "install KubeRay" in helm4.refusal(values, kuberay=False)


@pytest.mark.parametrize("name", MATRIX)
def test_python_accepts_what_the_schema_accepts(name: str) -> None:
    load_values(overrides=MATRIX[name])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rollout": {"replicaz": 2}}, "rollout.replicaz"),
        ({"redis": {"size": 4}}, "redis.size"),
        ({"redis": {"size": "4GB"}}, "redis.size"),
        ({"fullnameOverride": "Foo"}, "fullnameOverride"),
    ],
)
def test_python_names_the_key_too(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValuesError, match=re.escape(message)):
        load_values(overrides=values)


def recipe_in(objects: Any) -> recipes.Recipe:
    return recipes.parse(recipes.read_yaml(objects.one("ConfigMap", "-recipe")["data"]["recipe.yaml"]))


@pytest.mark.parametrize("name", recipes.packaged())
def test_the_pods_get_the_packaged_recipe(helm4: Helm, name: str) -> None:
    assert recipe_in(helm4.template({"recipePreset": name})) == recipes.load(name)


def test_a_recipe_is_changed_key_by_key_whatever_the_value(helm: Helm) -> None:
    """False, zero, empty and null count; large integers and small floats stay what they are."""
    change = {
        "data": {"corpus": None, "train": "/x.parquet"},
        "algorithm": {"reweight": False},
        "queue": {"max_staleness": 0, "max_bytes": 68719476736},
        "learner": {"lr": 1e-7, "remove_padding": False, "steps": None},
    }
    got = recipe_in(helm.template({"recipe": change}))
    assert got == recipe_of(load_values(overrides={"recipe": change}))
    assert (got.data.corpus, got.data.train, got.algorithm.reweight) == (None, "/x.parquet", False)
    assert (got.queue.max_staleness, got.queue.max_bytes, got.learner.lr) == (0, 68719476736, 1e-7)
    assert got.learner.remove_padding is False


def test_a_null_removes_any_key_of_the_recipe(helm: Helm) -> None:
    """Number, word, switch, list and whole section, as the description of `recipe` promises; the default is left."""
    removed = {
        "rollout": {"group_filter": None, "n": None},
        "learner": {"weights": None, "lr": None, "betas": None},
        "reward": None,
        "seed": None,
    }
    got = recipe_in(helm.template({"recipe": removed}))
    assert got == recipe_of(load_values(overrides={"recipe": removed}))
    assert (got.rollout, got.reward.mode, got.learner.lr) == (
        recipes.load("quickstart").rollout.model_copy(update={"group_filter": True, "n": 16}),
        "compat",
        2e-6,
    )
    assert "recipe" in helm.refusal({"recipe": {"learner": {"betas": [None, 0.9]}}})


def test_every_key_of_the_recipe_may_be_null() -> None:
    """Validated one by one by a JSON schema validator of its own."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    validator = jsonschema.Draft7Validator(schema)
    for name, definition in schema["definitions"].items():
        if not name.startswith("Recipe"):
            continue
        section = name.removeprefix("Recipe").lower()
        for key in definition["properties"]:
            recipe = {section: {key: None}} if section else {key: None}
            assert not list(validator.iter_errors({"recipe": recipe})), recipe


def test_n_may_be_written_without_quotes(helm: Helm, tmp_path: Path) -> None:
    """To Helm's YAML reader the bare key `n` is false."""
    (tmp_path / "values.yaml").write_text("recipe:\n  rollout:\n    n: 4\n")
    done = helm.run(
        "template", "demo", str(CHART), "-f", str(tmp_path / "values.yaml"), "-s", "templates/common/recipe.yaml"
    )
    assert '"n": 4' in done.stdout, done.stderr
    assert "false" not in json.loads(done.stdout.partition("recipe.yaml: |")[2])["rollout"]


def test_a_recipe_without_a_preset_is_taken_as_it_is(helm4: Helm) -> None:
    whole = recipes.load("quickstart").model_dump(mode="json")
    assert recipe_in(helm4.template({"recipePreset": "", "recipe": whole})) == recipes.load("quickstart")
    with pytest.raises(RecipeError, match="missing key name"):
        recipe_of(load_values(overrides={"recipePreset": ""}))


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_use_all_128_gpus_and_fit_their_recipe(helm4: Helm, preset: str) -> None:
    values = load_values([CHART / preset])
    recipe = recipe_of(values)
    engines = values.rollout.replicas * values.rollout.engine.tensor_parallel
    ranks = values.learner.workers.replicas * values.learner.workers.gpus
    assert engines + ranks == 128
    assert ranks == recipe.learner.ranks
    assert engines % 8 == ranks % 8 == 0
    assert 8 % values.rollout.engine.tensor_parallel == 0
    gib = 1 << 30
    assert int(str(values.redis.resources.limits["memory"]).removesuffix("Gi")) * gib >= 2 * recipe.queue.max_bytes
    assert int(values.redis.size.removesuffix("Gi")) * gib >= 2 * recipe.queue.max_bytes
    assert values.storage.access_modes == ["ReadWriteMany"]
    assert recipe == recipe_in(helm4.template(files=(preset,)))


@pytest.mark.parametrize("weights", ["disk", "broadcast"])
@pytest.mark.parametrize("preset", [*PRESETS, "values-gpu.yaml"])
def test_rank_pods_have_the_memory_that_their_recipe_needs(preset: str, weights: str) -> None:
    """Requested: what loading, copies and processes take. As a limit: /dev/shm, filled, on top of it."""
    values = load_values([CHART / preset])
    recipe = recipe_of(values)
    # Routes are replayed from the weight store alone.
    replay = recipe.learner.routing_replay and weights == "disk"
    learner = recipe.learner.model_copy(update={"weights": weights, "routing_replay": replay})
    (shape,) = (sizes for name, sizes in SHAPES.items() if name.endswith(recipe.model.path.rpartition("/")[2]))
    workers = values.learner.workers
    estimated = estimate(recipe.model_copy(update={"learner": learner}), shape)
    need = estimated.host_total(workers.gpus) / MIB
    assert need <= _mib(str(workers.resources.requests["memory"]))
    assert need + _mib(values.learner.shared_memory) <= _mib(str(workers.resources.limits["memory"]))
    comments = " ".join((CHART / preset).read_text().replace("# ", "").split())
    if preset in PRESETS:
        assert f"Loading the model takes {need / 1024:.0f} GiB" in comments
        assert not estimated.files or f"`ephemeral-storage: {math.ceil(estimated.files / MIB / 1024)}Gi`" in comments


def test_the_defaults_fit_a_cluster_of_four_cpus(helm4: Helm) -> None:
    """kind's own pods request 0.95 CPU; learner included, KubeRay's submitter included."""
    from support.helm import pod_specs

    for kuberay in (True, False):
        cpu = memory = 0.0
        for _, metadata, spec in pod_specs(helm4.template(kuberay=kuberay)):
            if "helm.sh/hook" in metadata.get("annotations", {}):
                continue
            sidecars = [c for c in spec.get("initContainers", []) if c.get("restartPolicy") == "Always"]
            running = [c["resources"]["requests"] for c in [*spec["containers"], *sidecars]]
            cpu += sum(_cpu(request["cpu"]) for request in running)
            memory += sum(_mib(request["memory"]) for request in running)
        assert cpu <= 3.0
        assert memory <= 6 * 1024


def _cpu(text: str) -> float:
    return int(text[:-1]) / 1000 if text.endswith("m") else float(text)


def _mib(text: str) -> float:
    return float(text[:-2]) * {"Mi": 1, "Gi": 1024, "Ti": 1024**2}[text[-2:]]
