"""The reference pages docs/recipe.md and docs/values.md: every key with its type, default and meaning.

Pure: the pydantic models in, Markdown out. `scripts/generate.py` writes the files.
"""

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from golongrl import yaml_text
from golongrl.evaluation.suite import Suite
from golongrl.kubernetes.values import Values
from golongrl.kubernetes.values.common import INT32
from golongrl.recipe import Recipe

_RECIPE = """\
# Recipe reference

Generated from `golongrl.recipe.models` by `make generate`. A recipe says what a run is, and nothing of where it runs.
It is strict: an unknown key is refused with the nearest known one. Sizes are in tokens unless the name says otherwise,
durations (`_s`) in seconds, sizes in bytes (`_bytes`).

```bash
golongrl recipe list                                  # the packaged recipes
golongrl recipe show quickstart                       # one of them, with its comments
golongrl recipe check my.yaml --set algorithm.alpha=0.8
```
"""
_VALUES = """\
# Chart values reference

Generated from `golongrl.kubernetes.values` by `make generate`. Values say where a run runs; what it trains is the
recipe ([recipe.md](recipe.md)). With no values set, the chart is a complete small loop on CPU.

```bash
helm install golongrl charts/golongrl --namespace golongrl --create-namespace --values my-values.yaml
```
"""


_SUITE = """\
# Suite reference

Generated from `golongrl.evaluation.suite` by `make generate`. A suite says which benchmarks are asked of which model,
and how ([evaluation.md](evaluation.md)). It is strict, like a recipe. `null` means the benchmark's own value.

```bash
golongrl eval show long-context                       # a packaged suite, a start for one of your own
golongrl eval show long-context --resolved --set sampling.temperature=0.6
golongrl eval run my-suite.yaml --target runs/mine --data eval-data
```
"""


def suite_page() -> str:
    """docs/suite.md."""
    return "\n".join([_SUITE, *_sections(Suite, ""), ""])


def recipe_page() -> str:
    """docs/recipe.md."""
    return "\n".join([_RECIPE, *_sections(Recipe, ""), ""])


def values_page() -> str:
    """docs/values.md."""
    return "\n".join([_VALUES, *_sections(Values, ""), ""])


def _sections(model: type[BaseModel], path: str) -> list[str]:
    """A table of the section's own keys, then the sections below it."""
    rows, below = [], []
    for name, field in model.model_fields.items():
        key = f"{path}{field.alias or name}"
        nested = _section_of(field)
        if nested is not None and nested.model_fields:
            below += [
                f"\n## `{key}`\n\n{_one_line(field.description or nested.__doc__ or '')}\n",
                *_sections(nested, f"{key}."),
            ]
        else:
            rows.append(f"| `{key}` | {_kind(field)} | {_default(field)} | {_one_line(field.description or '')} |")
    table = ["| key | type | default | meaning |", "| --- | --- | --- | --- |", *rows] if rows else []
    return [*table, *below]


def _section_of(field: FieldInfo) -> type[BaseModel] | None:
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _kind(field: FieldInfo) -> str:
    bounds = [
        f"{sign} {getattr(bound, name)}"
        for bound in field.metadata
        for name, sign in (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below"))
        if getattr(bound, name, INT32) != INT32
    ]
    return ", ".join([_type(field.annotation), *bounds])


def _type(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join("null" if option is type(None) else _type(option) for option in arguments)
    if origin in (list, tuple):
        items = [argument for argument in arguments if argument is not Ellipsis]
        if origin is tuple and len(items) == len(arguments):
            return f"list of {len(items)}: {_type(items[0])}"
        return f"list of {_type(items[0])}"
    if origin is dict:
        return "mapping" if arguments[1] is Any else f"mapping of {_type(arguments[1])}"
    plain = {str: "string", int: "integer", float: "number", bool: "true or false", Any: "any value"}
    return plain.get(annotation, getattr(annotation, "__name__", str(annotation)).lower())


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    if isinstance(value, tuple):
        value = list(value)
    text = yaml_text.dump(value, flow=True).strip().removesuffix("...").strip()
    return f"`{_escaped(text)}`"


def _one_line(text: str) -> str:
    return _escaped(" ".join(text.split()))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
