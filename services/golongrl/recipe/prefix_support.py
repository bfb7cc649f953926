"""Whether a model can be trained with prompts computed once (golongrl.learner.batch.shared_prefix): a pure check.

The attention for it reaches the layers through a keyword argument that the model hands down, and is exact for causal
attention alone. What is not known to be so is trained in the plain way.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from golongrl.recipe.models import Recipe

# Architectures of transformers whose layers hand their keyword arguments on to the attention function, and which hold
# nothing that mixes tokens but causal attention.
_ARCHITECTURES = frozenset({"qwen3", "qwen3_moe", "qwen2", "qwen2_moe", "llama", "mistral"})


def plain_reason(config: Mapping[str, Any], recipe: "Recipe", *, on_cpu: bool) -> str | None:
    """Why prompts are computed again for every response; None where each is computed once.

    Args:
        config: the model folder's config.json.
    """
    if not recipe.learner.shared_prefix:
        return "learner.shared_prefix is false"
    architecture = config.get("model_type")
    if architecture not in _ARCHITECTURES:
        return f"the architecture {architecture!r} is not one of {', '.join(sorted(_ARCHITECTURES))}"
    if config.get("sliding_window") and config.get("use_sliding_window", architecture == "mistral"):
        return f"the model attends within a sliding window of {config['sliding_window']} tokens"
    if config.get("attention_dropout"):
        return f"the model has an attention dropout of {config['attention_dropout']}"
    if not on_cpu and recipe.model.dtype != "bfloat16":
        return f"the attention kernels of a GPU compute in bfloat16, and model.dtype is {recipe.model.dtype}"
    return None
