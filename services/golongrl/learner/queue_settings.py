"""From a recipe to the promises of its queue. Pure."""

from golongrl.data.prepared import Prepared
from golongrl.queue.types import QueueSettings
from golongrl.recipe import Recipe
from golongrl.recipe.fit import largest_group_bytes
from golongrl.routes.model import MoeRouting


def queue_settings(
    recipe: Recipe,
    vocabulary: int = 0,
    routing: MoeRouting | None = None,
    data: Prepared | None = None,
    held_out: Prepared | None = None,
) -> QueueSettings:
    """The queue's part of a recipe; `group_bytes` and `group_routes_bytes` are of the largest group there can be,
    uncompressed. `vocabulary`: token ids of the model are below it; 0 is not known. `routing`: the model's, if it has
    experts. `data`, `held_out`: the rows that are dealt."""
    rollout = recipe.rollout
    tokens = recipe.data.max_prompt_tokens + rollout.n * rollout.max_response_tokens
    return QueueSettings(
        **recipe.queue.model_dump(),
        max_gen_batches=rollout.max_gen_batches,
        group_bytes=largest_group_bytes(recipe),
        group_routes_bytes=tokens * routing.token_bytes if routing and recipe.learner.routing_replay else 0,
        vocabulary=vocabulary,
        data=data.digest if data is not None else "",
        held_out=held_out.digest if held_out is not None else "",
    )


def budget_warning(recipe: Recipe) -> str | None:
    """One line when `queue.max_bytes` may not hold what lies between two checkpoints: (K + max_staleness + 1) * B
    groups of the largest size. The run still ends well, with a checkpoint whenever the budget is full; None when there
    is room."""
    settings = queue_settings(recipe)
    batches = recipe.learner.checkpoint_every + settings.max_staleness + 1
    needed = batches * settings.groups_per_step * settings.group_bytes
    if settings.max_bytes >= needed:
        return None
    return (
        f"queue.max_bytes {settings.max_bytes} is below (learner.checkpoint_every + queue.max_staleness + 1) * "
        f"queue.groups_per_step groups of up to {settings.group_bytes} bytes = {needed}: "
        "checkpoints may come earlier than every learner.checkpoint_every steps"
    )
