"""Reading pipelines: a packaged name or a YAML file, plus `a.b=c` overrides, as recipes are read."""

from collections.abc import Iterable
from importlib import resources

from pydantic import ValidationError

from golongrl import yaml_text
from golongrl.data.construct.errors import PipelineError
from golongrl.data.construct.models import Pipeline
from golongrl.recipe import RecipeError, explain, override
from golongrl.recipe.load import file_text, plain_json, read_mapping


def packaged() -> list[str]:
    """Names of the pipelines shipped with the package, sorted."""
    folder = resources.files("golongrl.data.construct") / "pipelines"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def source(name_or_path: str) -> str:
    """The YAML text of a packaged pipeline or of a file.

    Raises:
        PipelineError: there is neither.
    """
    if name_or_path in packaged():
        return (resources.files("golongrl.data.construct") / "pipelines" / f"{name_or_path}.yaml").read_text("utf-8")
    return file_text(name_or_path, "pipeline", "file or packaged pipeline", packaged(), PipelineError)


def load(name_or_path: str, overrides: Iterable[str] = ()) -> Pipeline:
    """Read, override and check a pipeline.

    Raises:
        PipelineError: the file, an override or a value is wrong.
    """
    tree = read_mapping(source(name_or_path), f"pipeline {name_or_path}", PipelineError)
    try:
        for item in overrides:
            override(tree, item)
        return Pipeline.model_validate_json(plain_json(tree, f"pipeline {name_or_path}"))
    except RecipeError as error:
        raise PipelineError(str(error)) from error
    except ValidationError as error:
        raise PipelineError(f"pipeline {name_or_path}: {explain(error, Pipeline)}") from error


def dump(pipeline: Pipeline) -> str:
    """The pipeline as YAML that `load` reads back to an equal one."""
    return yaml_text.dump(pipeline.model_dump(mode="json"))
