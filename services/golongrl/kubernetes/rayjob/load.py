"""Reading values files as Helm does: one over the other, then checked; and the recipe they mean."""

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from golongrl import recipe as recipes
from golongrl.errors import InputError
from golongrl.kubernetes.values import Values
from golongrl.reading import read_text
from golongrl.recipe import Recipe
from golongrl.recipe.strict_yaml import MAX_BYTES, yaml_problem


class ValuesError(InputError, ValueError):
    """A values file, a key of it or a value is wrong; the message is one line that names it."""


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`, mapping by mapping; a null removes the key, as in Helm."""
    result = copy.deepcopy(dict(base))
    for key, value in over.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merge(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def load_values(files: Iterable[Path] = (), overrides: Mapping[str, Any] | None = None) -> Values:
    """The defaults, changed by each file in turn and by `overrides`.

    Raises:
        ValuesError: a file is not readable YAML, or a key is unknown or of the wrong type.
    """
    tree = Values().model_dump(mode="json", by_alias=True)
    for path in files:
        tree = _merge_values(tree, read_tree(path))
    try:
        return Values.model_validate(_merge_values(tree, overrides or {}))
    except ValidationError as error:
        raise ValuesError(f"values: {recipes.explain(error, Values)}") from error


def read_trees(paths: Iterable[Path], first: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Values files over `first`, each over the one before. Each is read once: it may be a pipe.

    Raises:
        ValuesError: a file cannot be read, or is not a mapping.
    """
    tree = dict(first or {})
    for path in paths:
        tree = overlay(tree, read_tree(path))
    return tree


def read_tree(path: Path) -> dict[str, Any]:
    """One values file as a mapping.

    Raises:
        ValuesError: it cannot be read, or is not a mapping.
    """
    try:
        tree = recipes.read_yaml(read_text(path, MAX_BYTES))
    except OSError as error:
        raise ValuesError(f"values file {path}: {error.strerror}") from error
    except InputError as error:
        raise ValuesError(f"values file {error}") from error
    except yaml.YAMLError as error:
        raise ValuesError(f"values file {path}: {yaml_problem(error)}") from error
    if not isinstance(tree, dict | None):
        raise ValuesError(f"values file {path}: expected a mapping, got {type(tree).__name__}")
    return tree or {}


def recipe_of(values: Values) -> Recipe:
    """The recipe that the values mean: the preset, changed by `recipe`.

    Raises:
        RecipeError: the preset does not exist or the result is not a valid recipe.
    """
    base = recipes.read_tree(values.recipe_preset) if values.recipe_preset else {}
    return recipes.parse(merge(base, values.recipe), origin=values.recipe_preset or "recipe")


def _merge_values(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Like `merge`, but `recipe` keeps its nulls: they remove keys of the preset, later."""
    merged = merge(base, {key: value for key, value in over.items() if key != "recipe"})
    recipe = over.get("recipe") or {}
    # Anything else is refused with the other values.
    merged["recipe"] = overlay(base.get("recipe") or {}, recipe) if isinstance(recipe, Mapping) else recipe
    return merged


def overlay(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`, mapping by mapping; a null stays, for whoever merges next."""
    both = {**base, **over}
    for key in base.keys() & over.keys():
        if isinstance(base[key], Mapping) and isinstance(over[key], Mapping):
            both[key] = overlay(base[key], over[key])
    return both
