"""What a run means, and the objects that train it. Pure: the run and its release's site in, manifests out."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Any, Final

from pydantic import ValidationError

from golongrl import recipe as recipes
from golongrl.errors import InputError
from golongrl.kubernetes.rayjob import site as rayjobs
from golongrl.kubernetes.rayjob.load import merge
from golongrl.kubernetes.rayjob.site import Manifest, Site
from golongrl.recipe import Recipe
from golongrl.recipe.models import Section
from golongrl_operator.api import ATTEMPT, CONTENT, GROUP, KIND, RUN_LABEL, VERSION, Spec

# Keys that workers and (learner.weights) NetworkPolicies take from the release's recipe, not from the run's.
_POOL_READS: Final = ("rollout", "reward", "queue", "seed", "model.context_length", "learner.weights")
# Keys that pool and learner must have in common, and why: otherwise the run trains on other samples than it says.
_MUST_AGREE: Final = {
    "model.path": "the release's checkpoints are of that model, and the run would resume from them",
    "data": "the workers read their rows from that data, and would generate those instead of this run's",
    "rollout.temperature": "the engines sample with it, and log-probs at another temperature make every ratio wrong",
    "rollout.max_response_tokens": "the engines answer up to it, and overlong responses are penalised by it",
}
# A hash in an annotation that people compare by eye.
_CONTENT_LENGTH: Final = 16


class SpecError(InputError, ValueError):
    """The spec cannot be trained; the message is one line that names the key."""


# Every pass sees every run, and most have ended, so each spec is resolved only once (16 ms of CPU).
_REMEMBERED: Final = 256


@dataclass(frozen=True)
class Meaning:
    """A spec, resolved."""

    spec: Spec
    recipe: Recipe
    rayjob: Manifest
    """The release's, with the run's patch; its name lacks the hash."""
    content: str
    """Hash of all that the RayJob runs: recipe, pods, scheduling."""
    differs: tuple[str, ...]
    """Keys of the recipe that the rollout pool reads too, with other values."""


def resolve(site: Site, run: Manifest) -> Meaning:
    """What the run's spec means with its release.

    Raises:
        SpecError, ValuesError, RecipeError: a key or value is wrong, recipe and values do not fit each other, or the
            recipe and the release's rollout pool would train something that neither of them says.
    """
    return _resolve(site, json.dumps(run.get("spec", {})))


@lru_cache(maxsize=_REMEMBERED)
def _resolve(site: Site, text: str) -> Meaning:
    try:
        spec = Spec.model_validate(json.loads(text))
    except ValidationError as error:
        raise SpecError(f"spec: {recipes.explain(error, Spec)}") from error
    # Elsewhere a recipe's name may be a path; here it would be one in the operator's own pod.
    if spec.recipe_preset and spec.recipe_preset not in recipes.packaged():
        raise SpecError(f"spec.recipePreset: {spec.recipe_preset!r} is none of {', '.join(recipes.packaged())}")
    base = site.recipe if spec.recipe_preset is None else {}
    if spec.recipe_preset:
        base = recipes.read_tree(spec.recipe_preset)
    recipe = recipes.parse(merge(base, _with_n(spec.recipe)), origin=spec.recipe_preset or "recipe")
    pool = recipes.parse(dict(site.recipe), origin=f"release {site.release}")
    _check_agreement(pool, recipe)
    job = rayjobs.patch(site.rayjob, spec.learner.model_dump(exclude_unset=True))
    try:
        rayjobs.check(job, recipe, site.gpu_resource)
    except rayjobs.RayJobError as error:
        raise SpecError(f"spec.learner: {error}") from error
    differs = tuple(key for section in _POOL_READS for key in _differing(pool, recipe, section))
    return Meaning(spec, recipe, job, rayjobs.content(job, recipe)[:_CONTENT_LENGTH], differs)


def objects(site: Site, run: Manifest, meaning: Meaning, attempt: int) -> list[Manifest]:
    """The ConfigMap with the recipe and the RayJob that reads it, owned by the run and named for this attempt."""
    metadata = run["metadata"]
    identity = f"{metadata['uid']}/{meaning.content}/{attempt}"
    made = rayjobs.documents(meaning.rayjob, meaning.recipe, site.namespace, identity)
    for item in made:
        # By these the operator finds its objects again, whatever a patch says.
        item["metadata"]["labels"] |= {RUN_LABEL: metadata["name"], "app.kubernetes.io/instance": site.release}
        item["metadata"].setdefault("annotations", {}).update({CONTENT: meaning.content, ATTEMPT: str(attempt)})
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


def _check_agreement(pool: Recipe, recipe: Recipe) -> None:
    rows = [("seed", "data")] if recipe.data.corpus else []
    for place, reason in [*((key, key) for key in _MUST_AGREE), *rows]:
        # How often the rows are gone through is not what they are.
        for key in (key for key in _differing(pool, recipe, place) if key != "data.epochs"):
            raise SpecError(
                f"spec.recipe: {key} is {_at(recipe, key)}, the release's rollout pool has {_at(pool, key)} "
                f"({_MUST_AGREE[reason]}): change it in the release, by a helm upgrade"
            )


def _differing(pool: Recipe, recipe: Recipe, place: str) -> list[str]:
    """Keys at or under a place that the two have otherwise."""
    one, other = _at(pool, place), _at(recipe, place)
    if isinstance(one, Section):
        keys = [f"{place}.{name}" for name in type(one).model_fields]
        return [key for key in keys if _at(pool, key) != _at(recipe, key)]
    return [] if one == other else [place]


def _at(recipe: Recipe, key: str) -> object:
    return reduce(getattr, key.split("."), recipe)
