"""Reading recipes: a packaged name or a YAML file, plus `a.b=c` overrides, checked strictly.

Every problem is one line that names the key's path and, for an unknown key, the nearest known one.
"""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from math import isfinite
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from golongrl.errors import InputError
from golongrl.recipe.models import Recipe


class RecipeError(InputError, ValueError):
    """The recipe cannot be used; the message is one line a person can act on."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2's floats: PyYAML's 1.1 reads `1e-6`, the usual way to write a learning rate, as text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(text: str) -> Any:
    """The value of a YAML (or JSON) text; raises `yaml.YAMLError` where it is neither."""
    return yaml.load(text, Loader=_Loader)  # a SafeLoader


def packaged() -> list[str]:
    """Names of the recipes shipped with the package, sorted."""
    folder = resources.files("golongrl.recipe") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def source(name_or_path: str) -> str:
    """The YAML text of a packaged recipe or of a file.

    Raises:
        RecipeError: there is neither a packaged recipe nor a readable file of that name.
    """
    if name_or_path in packaged():
        return (resources.files("golongrl.recipe") / "recipes" / f"{name_or_path}.yaml").read_text("utf-8")
    path = Path(name_or_path)
    if not path.is_file():
        near = difflib.get_close_matches(name_or_path, packaged(), n=1)
        hint = f"; did you mean {near[0]}?" if near else f" (packaged: {', '.join(packaged())})"
        raise RecipeError(f"recipe {name_or_path}: no such file or packaged recipe{hint}")
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path}: {error}") from error


def load(name_or_path: str, overrides: Iterable[str] = ()) -> Recipe:
    """Read, override and check a recipe.

    Args:
        name_or_path: a packaged name (`quickstart`) or a YAML file.
        overrides: `a.b=c` items; values are YAML (`queue.max_staleness=0`, `data.tasks=[T1, T4]`).

    Raises:
        RecipeError: the file, an override or a value is wrong.
    """
    tree = read_tree(name_or_path)
    for item in overrides:
        override(tree, item)
    return parse(tree, origin=name_or_path)


def read_tree(name_or_path: str) -> dict[str, Any]:
    """A recipe as it is written, not checked yet.

    Raises:
        RecipeError: there is no such recipe, or it is no YAML mapping.
    """
    try:
        tree = read_yaml(source(name_or_path))
    except yaml.YAMLError as error:
        raise RecipeError(f"recipe {name_or_path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        found = "nothing" if tree is None else type(tree).__name__
        raise RecipeError(f"recipe {name_or_path}: expected a mapping of sections, got {found}")
    return tree


def parse(tree: Mapping[str, Any], origin: str = "recipe") -> Recipe:
    """Check a mapping (YAML or JSON) against the schema.

    Raises:
        RecipeError: with one line for the first problem found and a count of the others.
    """
    try:
        # JSON mode: strict types, but a YAML list may fill a tuple.
        return Recipe.model_validate_json(_json(tree, origin))
    except ValidationError as error:
        raise RecipeError(f"recipe {origin}: {explain(error, Recipe)}") from error


def dump(recipe: Recipe) -> str:
    """The recipe as YAML that `load` reads back to an equal recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _json(tree: Mapping[str, Any], origin: str) -> str:
    try:
        return json.dumps(tree, allow_nan=False)
    except (TypeError, ValueError) as error:
        for path, value in _leaves(tree):
            if not isinstance(value, str | int | float | None) or (isinstance(value, float) and not isfinite(value)):
                raise RecipeError(
                    f"recipe {origin}: {path}: {value} is no text, finite number, list or section (quote what is text)"
                ) from error
        raise RecipeError(f"recipe {origin}: {error}") from error


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is no mapping or list, with its path."""
    if not isinstance(tree, Mapping | list):
        yield path, tree
        return
    for key, value in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
        yield from _leaves(value, f"{path}.{key}" if path else str(key))


def override(tree: dict[str, Any], item: str) -> None:
    """Set one `a.b=c` in a recipe's mapping, in place.

    Raises:
        RecipeError: the item has no such form, or a part of its path is not a section.
    """
    key, equals, text = item.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise RecipeError(f"--set {item}: expected key.path=value")
    try:
        value = read_yaml(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {item}: the value is not YAML") from error
    node = tree
    for depth, part in enumerate(path[:-1]):
        child = node.setdefault(part, {})
        if not isinstance(child, dict):
            raise RecipeError(f"--set {item}: {'.'.join(path[: depth + 1])} is not a section")
        node = child
    node[path[-1]] = value


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem that `model` found and a count of the others; a misspelt key comes before what it left out."""
    first, *others = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    more = f" (and {len(others)} more)" if others else ""
    return _explain(first, model) + more


def _explain(error: ErrorDetails, model: type[BaseModel]) -> str:
    path = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        *parents, key = error["loc"]
        near = difflib.get_close_matches(str(key), _known_keys(parents, model), n=1, cutoff=0.5)
        return f"unknown key {path}" + (f"; did you mean {'.'.join([*map(str, parents), near[0]])}?" if near else "")
    if error["type"] == "missing":
        return f"missing key {path}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{path}: {message}" if path else message


def _known_keys(parents: Iterable[int | str], model: type[BaseModel]) -> list[str]:
    """As they are written (by alias) in the section at `parents`; none where that is no section of its own."""
    for part in parents:
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        section = fields[str(part)].annotation if str(part) in fields else None
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            return []
        model = section
    return [field.alias or name for name, field in model.model_fields.items()]
