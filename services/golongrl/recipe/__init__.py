"""Recipes: what a run is. `load("quickstart", ["queue.max_staleness=0"])` gives a checked, immutable `Recipe`."""

from golongrl.recipe.fields import TaskType
from golongrl.recipe.load import (
    RecipeError,
    dump,
    explain,
    load,
    override,
    packaged,
    parse,
    plain_json,
    read_tree,
    source,
)
from golongrl.recipe.models import (
    Algorithm,
    Data,
    Learner,
    Model,
    Queue,
    Recipe,
    Reward,
    Rollout,
    Telemetry,
)
from golongrl.recipe.strict_yaml import read_yaml

__all__ = [
    "Algorithm",
    "Data",
    "Learner",
    "Model",
    "Queue",
    "Recipe",
    "RecipeError",
    "Reward",
    "Rollout",
    "TaskType",
    "Telemetry",
    "dump",
    "explain",
    "load",
    "override",
    "packaged",
    "parse",
    "plain_json",
    "read_tree",
    "read_yaml",
    "source",
]
