"""What a person should know of a recipe that can be trained: `recipe check` and `train` say the same lines. Pure."""

from collections.abc import Iterator

from golongrl.learner.queue_settings import budget_warning
from golongrl.recipe import Recipe
from golongrl.recipe.fit import steps_warning
from golongrl.recipe.unused import unused_settings


def recipe_warnings(recipe: Recipe) -> Iterator[str]:
    """One line each."""
    yield from filter(None, (budget_warning(recipe), steps_warning(recipe)))
    yield from unused_settings(recipe)
