"""Reading recipes: a packaged name or a YAML file, plus `a.b=c` overrides, checked strictly.

Every fault is named in one line with the key's path and, for an unknown key, the nearest known one.
"""

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from math import isfinite
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from golongrl import yaml_text
from golongrl.errors import InputError, has_half_character, without_secrets
from golongrl.reading import read_text
from golongrl.recipe.fields import COLLECTOR, NAME, PROJECT
from golongrl.recipe.models import Recipe
from golongrl.recipe.strict_yaml import MAX_BYTES, read_whole, read_yaml, yaml_problem


class RecipeError(InputError, ValueError):
    """The recipe cannot be used; the message is one line a person can act on."""


MOST_FAULTS = 12  # named in one line
# A word such as `enabled`, which is in more sections than these, tells nothing of which was meant.
_MEANT = 3
# What a message shows of a value.
_SHOWN = 60


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
    return file_text(name_or_path, "recipe", "file or packaged recipe", packaged(), RecipeError)


def file_text(name: str, kind: str, expected: str, known: Sequence[str], error_type: type[InputError]) -> str:
    """The text of a file named where a packaged document (a recipe, a suite, a pipeline) could be.

    Args:
        kind: what the document is, for the message.
        expected: what `name` may be.
        known: the packaged names, none of which it is.

    Raises:
        InputError: of `error_type`; there is no such file, or it cannot be read.
    """
    path = Path(name)
    # An empty one is a variable of a script that was not set; as a path it would be this folder.
    if not name or not path.exists():
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else f" (packaged: {', '.join(known)})"
        shown = name or "''"
        raise error_type(f"{kind} {shown}: no such {expected}{hint}")
    try:
        return read_text(path, MAX_BYTES)
    except InputError as error:
        raise error_type(f"{kind} {error}") from error
    except OSError as error:
        raise error_type(f"{kind} {path}: cannot be read: {error.strerror or error}") from error


def load(name_or_path: str, overrides: Iterable[str] = ()) -> Recipe:
    """Read, override and check a recipe.

    Args:
        name_or_path: a packaged name (`quickstart`) or a YAML file.
        overrides: `a.b=c` items; values are YAML (`queue.max_staleness=0`, `data.tasks=[T1, T4]`).

    Raises:
        RecipeError: the file, an override or a value is wrong.
    """
    tree, changed = read_tree(name_or_path), list[str]()
    for item in overrides:
        override(tree, item)
        changed.append(item.partition("=")[0].strip())
    return parse(tree, origin=f"{name_or_path} with --set {', '.join(changed)}" if changed else name_or_path)


def read_tree(name_or_path: str) -> dict[str, Any]:
    """A recipe as it is written, not checked yet.

    Raises:
        RecipeError: there is no such recipe, or it is not a YAML mapping.
    """
    return read_mapping(source(name_or_path), f"recipe {name_or_path}", RecipeError)


def read_mapping(text: str, what: str, error_type: type[InputError]) -> dict[str, Any]:
    """The mapping of sections that a YAML document (a recipe, a suite, a pipeline) has to be.

    Raises:
        InputError: of `error_type`, whose message begins with `what`; it is not YAML, or something else.
    """
    try:
        tree = read_yaml(text)
    except yaml.YAMLError as error:
        raise error_type(f"{what}: not YAML that can be read: {yaml_problem(error)}") from error
    if not isinstance(tree, dict):
        found = "nothing" if tree is None else type(tree).__name__
        raise error_type(f"{what}: expected a mapping of sections, got {found}")
    return tree


def parse(tree: Mapping[str, Any], origin: str = "recipe") -> Recipe:
    """Check a mapping (YAML or JSON) against the schema.

    Raises:
        RecipeError: naming every fault found.
    """
    for path, value in _leaves(tree):
        if has_half_character(f"{path} {value}"):
            raise RecipeError(f"recipe {origin}: {ascii(path)[1:-1]}: it has half of a character (\\ud800 to \\udfff)")
    try:
        # JSON mode: strict types, but a YAML list may fill a tuple.
        return Recipe.model_validate_json(plain_json(tree, f"recipe {origin}"))
    except ValidationError as error:
        raise RecipeError(f"recipe {origin}: {explain(error, Recipe)}") from error


def dump(recipe: Recipe) -> str:
    """The recipe as YAML that `load` reads back to an equal recipe."""
    return yaml_text.dump(recipe.model_dump(mode="json"))


def plain_json(tree: Mapping[str, Any], origin: str) -> str:
    """A YAML mapping as JSON.

    Raises:
        RecipeError: a value has no place in JSON; the message names its key.
    """
    try:
        # Half of a character cannot be written.
        json.dumps(tree, ensure_ascii=False).encode()
        return json.dumps(tree, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        for path, value in _leaves(tree):
            if isinstance(value, str) and has_half_character(value):
                raise RecipeError(f"{origin}: {path}: {ascii(value)[:80]} has half of a character") from error
            if not isinstance(value, str | int | float | None) or (isinstance(value, float) and not isfinite(value)):
                raise RecipeError(
                    f"{origin}: {path}: {value} must be a string, finite number, list or mapping (quote strings)"
                ) from error
        raise RecipeError(f"{origin}: {error}") from error


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is neither a mapping nor a list, with its path."""
    if not isinstance(tree, Mapping | list):
        yield path, tree
        return
    for key, value in tree.items() if isinstance(tree, Mapping) else enumerate(tree):
        yield from _leaves(value, f"{path}.{key}" if path else str(key))


def override(tree: dict[str, Any], item: str) -> None:
    """Set one `a.b=c` in a recipe's mapping, in place.

    Raises:
        RecipeError: the item has no such form or no value, or a part of its path is not a section.
    """
    key, equals, text = item.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise RecipeError(f"--set {item}: expected key.path=value")
    if not text.strip():
        # YAML reads nothing as null: an unset variable of a shell would turn the setting off.
        raise RecipeError(f"--set {item}: no value; write {key.strip()}=null to set none")
    try:
        value = read_whole(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {item}: the value is not YAML that can be read: {yaml_problem(error)}") from error
    node = tree
    for depth, part in enumerate(path[:-1]):
        child = node.setdefault(part, {})
        if not isinstance(child, dict):
            raise RecipeError(f"--set {item}: {'.'.join(path[: depth + 1])} is not a section")
        node = child
    node[path[-1]] = value


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """All faults that `model` found, in one line, a misspelt key before what it left out; many are counted."""
    # A list counts as empty as soon as one of its entries is wrong.
    inside = {problem["loc"][:-1] for problem in error.errors()}
    told = [problem for problem in error.errors() if problem["type"] != "too_short" or problem["loc"] not in inside]
    found = sorted(told, key=lambda problem: problem["type"] != "extra_forbidden")
    lines = list(dict.fromkeys(_explain(problem, model) for problem in found))
    more = f" (and {len(lines) - MOST_FAULTS} more)" if len(lines) > MOST_FAULTS else ""
    return "; ".join(lines[:MOST_FAULTS]) + more


# What a pattern of the recipe's asks for.
_ASKED = {
    NAME: "use lower-case letters, digits, - and ., with a letter or digit at both ends and around each dot",
    COLLECTOR: "write it as http://HOST:PORT, without a user or password",
    PROJECT: "leave out / \\ # ? % and :",
}


def _explain(error: ErrorDetails, model: type[BaseModel]) -> str:
    # A key may be any text.
    path = ".".join(str(part) if str(part).isprintable() else json.dumps(part)[1:-1] for part in error["loc"])
    if error["type"] == "extra_forbidden":
        *parents, key = error["loc"]
        near = difflib.get_close_matches(str(key), _known_keys(parents, model), n=1, cutoff=0.5)
        # The same word in another section is nearer than another word in this one.
        same = list(_paths_to(str(key), model))
        meant = same if 0 < len(same) <= _MEANT else [".".join([*map(str, parents), word]) for word in near]
        return f"unknown key {path}" + (f"; did you mean {' or '.join(meant)}?" if meant else "")
    if error["type"] == "missing":
        return f"missing key {path}"
    message = error["msg"].removeprefix("Value error, ")
    path = path.removesuffix(".[key]")
    if error["type"] == "string_pattern_mismatch" and (asked := _ASKED.get(error["ctx"]["pattern"])):
        shown = without_secrets(json.dumps(error["input"], ensure_ascii=False), {})
        message = f"{shown[:_SHOWN]} cannot be used: {asked}"
    if error["type"] == "too_short":
        message = f"it has {error['ctx']['actual_length']} entries, at least {error['ctx']['min_length']} are needed"
    if error["type"] == "string_type" and isinstance(error["input"], bool | int | float):
        message += f"; it is read as {json.dumps(error['input'])}: put quotes around a text"
    return f"{path}: {message}" if path else message


def _paths_to(key: str, model: type[BaseModel]) -> Iterator[str]:
    """Where a key of this name stands in the sections of `model`."""
    for name, field in model.model_fields.items():
        written = field.alias or name
        if written == key:
            yield written
        for section in (field.annotation, *get_args(field.annotation)):
            if isinstance(section, type) and issubclass(section, BaseModel):
                yield from (f"{written}.{path}" for path in _paths_to(key, section))


def _known_keys(parents: Iterable[int | str], model: type[BaseModel]) -> list[str]:
    """As they are written (by alias) in the section at `parents`; none where that is no section of its own."""
    for part in parents:
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        section = fields[str(part)].annotation if str(part) in fields else None
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            return []
        model = section
    return [field.alias or name for name, field in model.model_fields.items()]
