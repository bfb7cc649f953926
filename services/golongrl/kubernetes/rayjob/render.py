"""`kubectl apply`-able text: the RayJob of a recipe together with the ConfigMap that holds the recipe.

Pure: recipe and values in, YAML out. The name of both objects ends in a hash of their content.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from golongrl import recipe as recipes
from golongrl.kubernetes.rayjob import naming
from golongrl.kubernetes.rayjob.builder import Manifest, ValuesError, rayjob
from golongrl.kubernetes.rayjob.load import load_values, merge
from golongrl.kubernetes.rayjob.naming import Release
from golongrl.kubernetes.values import Values
from golongrl.recipe import Recipe

# Kubernetes' names of a namespace, and Helm's of a release.
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DOTTED = rf"{_LABEL}(\.{_LABEL})*"

_HEADER = """\
# {recipe} as a RayJob, for `kubectl apply -f` beside the release {release!r}:
#   helm install {release} charts/golongrl{arguments} --set learner.enabled=false
# The release brings Redis, the reward service, the rollout pool and the shared volume; this trains with them. The pool
# follows the release's own recipe: give both the same `rollout`, `reward` and `queue`.
# The cluster needs KubeRay 1.7 (its CRDs exceed what client-side apply can store: kubectl apply --server-side).
"""


def chart() -> Path:
    """The chart's folder: inside the installed package, or in the working tree."""
    packaged = Path(str(resources.files("golongrl.kubernetes") / "chart"))
    return packaged if packaged.is_dir() else Path(__file__).parents[4] / "charts" / "golongrl"


def preset(recipe: str) -> Path | None:
    """The chart's values file for a packaged recipe, if it has one."""
    path = chart() / f"values-{recipe}.yaml"
    return path if path.is_file() else None


def resolve(
    name: str, files: Iterable[Path] = (), overrides: Iterable[str] = (), settings: Mapping[str, Any] | None = None
) -> tuple[Recipe, Values]:
    """The recipe `name` with what values files and `--set` change, and those values.

    The chart's preset for that recipe comes before the files, as it does for `golongrl deploy`.

    Raises:
        ValuesError, RecipeError: a file, a key or a value is wrong.
    """
    values = load_values([path for path in [preset(name), *files] if path], settings)
    tree = merge(recipes.read_tree(name), values.recipe)
    for item in overrides:
        recipes.override(tree, item)
    return recipes.parse(tree, origin=name), values


def content(recipe: Recipe, values: Values, release: Release) -> str:
    """Hash of all that the RayJob runs."""
    draft = rayjob(recipe, values, release, suffix="0")
    text = recipes.dump(recipe) + json.dumps(draft["spec"], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def documents(recipe: Recipe, values: Values, release: Release, suffix: str | None = None) -> list[Manifest]:
    """The ConfigMap with the recipe and the RayJob that reads it; without `suffix` their name ends in the content's."""
    text = recipes.dump(recipe)
    job = rayjob(recipe, values, release, suffix or content(recipe, values, release)[:8])
    name = job["metadata"]["name"]
    for template in _templates(job):
        for volume in template["spec"]["volumes"]:
            if volume["name"] == "recipe":
                volume["configMap"]["name"] = name
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name,
            **({"namespace": release.namespace} if release.namespace else {}),
            "labels": naming.component_labels(release, values, "learner", {}),
        },
        "data": {"recipe.yaml": text},
    }
    return [config, job]


def rayjob_yaml(name: str, recipe: Recipe, values: Values, release: Release, files: Iterable[Path] = ()) -> str:
    """Both documents as YAML, under a header that says how to install the release that they need.

    Args:
        name: as `resolve` was given it, with `files`.

    Raises:
        ValuesError: Helm would refuse the release's name, or Kubernetes its namespace.
    """
    for option, word, form, longest in (
        ("--release", release.name, _DOTTED, 53),
        ("--namespace", release.namespace or "default", _LABEL, 63),
    ):
        if len(word) > longest or not re.fullmatch(form, word):
            raise ValuesError(f"{option} {word}: use lower-case letters, digits and '-', {longest} at most")
    own = preset(name)
    arguments = [f" -f {path}" for path in [*([f"charts/golongrl/{own.name}"] if own else []), *files]]
    if name in recipes.packaged() and values.recipe_preset != name:
        arguments.append(f" --set recipePreset={name}")
    if release.namespace:
        arguments.append(f" -n {release.namespace}")
    header = _HEADER.format(recipe=recipe.name, release=release.name, arguments="".join(arguments))
    return header + "---\n" + yaml.dump_all(documents(recipe, values, release), Dumper=_Dumper, sort_keys=False)


class _Dumper(yaml.SafeDumper):
    """No anchors: the same security context in five places is five texts; multi-line text as a block."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the signature is PyYAML's
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def _templates(job: Manifest) -> list[Manifest]:
    cluster = job["spec"].get("rayClusterSpec")
    if cluster is None:
        return []
    return [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster.get("workerGroupSpecs", []))]
