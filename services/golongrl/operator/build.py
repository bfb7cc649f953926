"""What a run means, and the objects that train it. Pure: the run and its release's values in, manifests out."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final

from pydantic import ValidationError

from golongrl.errors import InputError
from golongrl.manifests import render
from golongrl.manifests.learner import Manifest
from golongrl.manifests.load import load_values, overlay, recipe_of
from golongrl.manifests.naming import Release
from golongrl.manifests.values import Values
from golongrl.operator.model import ATTEMPT, CONTENT, GROUP, KIND, RUN_LABEL, VERSION, Spec
from golongrl.recipe import Recipe

# What workers read of the recipe, and (learner.weights) NetworkPolicies follow: the release's, whatever a run says.
_POOL_READS: Final = (
    ("rollout",), ("reward",), ("queue",), ("seed",), ("model", "context_length"), ("data", "max_prompt_tokens"),
    ("learner", "weights"),
)  # fmt: skip
# A hash in an annotation that people compare by eye.
_CONTENT_LENGTH: Final = 16


class SpecError(InputError, ValueError):
    """The spec cannot be trained; the message is one line that names the key."""


@dataclass(frozen=True)
class Site:
    """The release that the operator works for, and its values (the file that the chart mounts)."""

    release: Release
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Meaning:
    """A spec, resolved."""

    spec: Spec
    recipe: Recipe
    values: Values
    content: str
    """Hash of all that the RayJob runs: recipe, pods, scheduling."""
    differs: tuple[str, ...]
    """Keys of the recipe that the rollout pool reads too, and has otherwise."""


def resolve(site: Site, run: Manifest) -> Meaning:
    """What the run's spec means beside its release.

    Raises:
        SpecError, ValuesError, RecipeError: a key or value is wrong, or recipe and values do not fit each other.
    """
    try:
        spec = Spec.model_validate(run.get("spec", {}))
    except ValidationError as error:
        first = error.errors()[0]
        raise SpecError(f"spec.{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from error
    tree = dict(site.values)
    if spec.recipe_preset is not None:
        tree |= {"recipePreset": spec.recipe_preset, "recipe": {}}
    values = load_values(overrides=overlay(tree, {"recipe": _with_n(spec.recipe), "learner": spec.learner}))
    recipe = recipe_of(values)
    draft = render.documents(recipe, values, site.release)[1]["metadata"]["labels"]
    text = render.content(recipe, values, site.release) + json.dumps(draft, sort_keys=True)
    pool = recipe_of(load_values(overrides=dict(site.values)))
    differs = tuple(".".join(path) for path in _POOL_READS if _at(pool, path) != _at(recipe, path))
    return Meaning(spec, recipe, values, _hash(text)[:_CONTENT_LENGTH], differs)


def objects(site: Site, run: Manifest, meaning: Meaning, attempt: int) -> list[Manifest]:
    """The ConfigMap with the recipe and the RayJob that reads it, owned by the run; named for this attempt alone."""
    metadata = run["metadata"]
    suffix = _hash(f"{metadata['uid']}/{meaning.content}/{attempt}")[:8]
    made = render.documents(meaning.recipe, meaning.values, site.release, suffix)
    for item in made:
        item["metadata"]["labels"][RUN_LABEL] = metadata["name"]
        item["metadata"]["annotations"] = {CONTENT: meaning.content, ATTEMPT: str(attempt)}
        item["metadata"]["ownerReferences"] = [
            {
                "apiVersion": f"{GROUP}/{VERSION}",
                "kind": KIND,
                "name": metadata["name"],
                "uid": metadata["uid"],
                "controller": True,
            }
        ]
    return made


def _with_n(recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    """kubectl's YAML reader takes an unquoted `n:` (recipe.rollout.n) for the boolean false."""
    rollout = recipe.get("rollout")
    if not isinstance(rollout, Mapping) or "false" not in rollout:
        return recipe
    rest = {key: value for key, value in rollout.items() if key != "false"}
    return {**recipe, "rollout": {**rest, "n": rollout["false"]}}


def _at(recipe: Recipe, path: Sequence[str]) -> object:
    return reduce(getattr, path, recipe)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
