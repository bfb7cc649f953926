"""Settings that others make unused: whoever sets one believes that it does something. Pure.

A resolved recipe names every key, so a setting counts as set when its value is not the default.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from golongrl.recipe.functions import is_own

if TYPE_CHECKING:
    from golongrl.recipe.models import Recipe

# By estimator: the settings of `algorithm` that it reads. A user's own is called with none of them.
_OF_ESTIMATORS = {
    "normalize": ("tmn_grpo", "grpo"),
    "reweight": ("tmn_grpo",),
    "alpha": ("tmn_grpo",),
    "gamma": ("tmn_grpo",),
    "epsilon": ("tmn_grpo", "grpo", "qwenlong_grpo", "aepo"),
    "entropy_low": ("aepo",),
    "entropy_high": ("aepo",),
}
# By policy loss, as verl reads them; a user's own has the whole configuration.
_CLIPPED = ("vanilla", "gspo", "cispo", "geo_mean", "clip_cov", "dppo_tv", "dppo_kl")
_OF_LOSSES = {
    "clip_ratio_low": _CLIPPED,
    "clip_ratio_high": _CLIPPED,
    "clip_ratio_c": ("vanilla", "dppo_tv", "dppo_kl"),
}
# These average in their own way; the entropy bonus and the KL loss still follow the setting.
_AVERAGED_BY_LOSS = ("sapo", "geo_mean")


def unused_settings(recipe: "Recipe") -> Iterator[str]:
    """One line for each reason why settings that are not the default do nothing."""
    found: dict[str, list[str]] = {}
    for key, reason in _unused(recipe):
        section, name = key.split(".")
        part = getattr(recipe, section)
        if getattr(part, name) != type(part).model_fields[name].default:
            found.setdefault(reason, []).append(key)
    for reason, keys in found.items():
        yield f"{', '.join(keys)}: set, but unused, because {reason}"


def _unused(recipe: "Recipe") -> Iterator[tuple[str, str]]:
    yield from _of_the_algorithm(recipe)
    yield from _of_corrections(recipe)
    yield from _of_data(recipe)
    yield from _of_validation(recipe)
    yield from _of_weights(recipe)


def _either(names: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _of_the_algorithm(recipe: "Recipe") -> Iterator[tuple[str, str]]:
    algorithm = recipe.algorithm
    estimator, loss = algorithm.estimator, algorithm.policy_loss
    for name, readers in _OF_ESTIMATORS.items():
        if estimator not in readers:
            yield f"algorithm.{name}", f"only algorithm.estimator {_either(readers)} reads it"
    if estimator == "tmn_grpo" and not algorithm.reweight:
        for name in ("alpha", "gamma"):
            yield f"algorithm.{name}", "algorithm.reweight is false"
    if estimator in _OF_ESTIMATORS["normalize"] and not algorithm.normalize:
        yield "algorithm.epsilon", "algorithm.normalize is false"
    if not is_own(loss):
        for name, readers in _OF_LOSSES.items():
            if loss not in readers:
                yield f"algorithm.{name}", f"only algorithm.policy_loss {_either(readers)} reads it"
    if loss in _AVERAGED_BY_LOSS and not algorithm.entropy_coeff and not algorithm.kl_loss_coef:
        yield "algorithm.loss_agg_mode", f"algorithm.policy_loss {loss} averages in its own way"
    if not algorithm.kl_loss_coef:
        yield "algorithm.kl_loss_type", "algorithm.kl_loss_coef is 0"
    if not algorithm.overlong_buffer:
        yield "algorithm.overlong_penalty", "algorithm.overlong_buffer is 0"
    elif not algorithm.overlong_penalty:
        yield "algorithm.overlong_buffer", "algorithm.overlong_penalty is 0"


def _of_corrections(recipe: "Recipe") -> Iterator[tuple[str, str]]:
    algorithm = recipe.algorithm
    if algorithm.proximal == "behaviour":
        for name in ("rollout_is", "rollout_rs", "rollout_token_veto"):
            yield f"algorithm.{name}", "algorithm.proximal behaviour makes every importance weight 1"
    if algorithm.proximal == "behaviour" or algorithm.rollout_is is None:
        why = "algorithm.rollout_is is null" if algorithm.rollout_is is None else "algorithm.proximal is behaviour"
        for name in ("rollout_is_clip", "rollout_is_mode", "rollout_is_batch_normalize"):
            yield f"algorithm.{name}", why


def _of_data(recipe: "Recipe") -> Iterator[tuple[str, str]]:
    data = recipe.data
    if data.corpus is None:
        for name in ("prompts", "validation_prompts", "context_tokens", "instructions"):
            yield f"data.{name}", "they are for prompts built from data.corpus, and data.train is set"
    elif data.validation is None:
        yield "data.bad_rows", "prompts built from data.corpus have no bad rows"
    else:
        yield "data.validation_prompts", "data.validation is set"
    queue = recipe.queue
    if len(data.tasks) == 1:
        yield "queue.min_prompts_per_task", "data.tasks has one task type"
    elif queue.min_prompts_per_task > queue.groups_per_step:
        yield "queue.min_prompts_per_task", f"it exceeds queue.groups_per_step {queue.groups_per_step}"


def _of_validation(recipe: "Recipe") -> Iterator[tuple[str, str]]:
    learner = recipe.learner
    if not (learner.test_freq or learner.val_before_train):
        why = "nothing validates: learner.test_freq is 0 and learner.val_before_train false"
        yield "data.validation", why
        yield "rollout.validation_temperature", why
        yield "rollout.validation_top_p", why
        yield "learner.validation_deadline_s", why
    elif recipe.rollout.validation_temperature == 0:
        yield "rollout.validation_top_p", "rollout.validation_temperature is 0, which takes the likeliest token"


def _of_weights(recipe: "Recipe") -> Iterator[tuple[str, str]]:
    learner = recipe.learner
    if learner.weights != "disk":
        for name in ("weight_base_every", "keep_weights"):
            yield f"learner.{name}", f"they are for the weight store, and learner.weights is {learner.weights}"
    if not learner.routing_replay:
        yield "queue.max_routes_bytes", "learner.routing_replay is false"
