"""Estimators and policy losses by their names, and a user's own as `my_package.module:function`. Nothing here is heavy.

Invariants:
- a name in a recipe is one of the lists below, or says where a function is; nothing else is accepted;
- a function is imported and its signature compared with what it will be called with before anything slow starts.
"""

import difflib
import importlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

from golongrl.errors import InputError

if TYPE_CHECKING:
    from golongrl.recipe.models import Recipe

ESTIMATORS = ("tmn_grpo", "grpo", "dr_grpo", "qwenlong_grpo", "rloo", "reinforce_plus_plus_baseline", "aepo")

# verl's losses with the options of their own. `bypass_mode` is not among them: it corrects for the engine's policy by
# itself, which the keys `algorithm.rollout_*` do here for every loss.
POLICY_LOSSES: Mapping[str, frozenset[str]] = {
    "vanilla": frozenset(),
    "gspo": frozenset(),
    "cispo": frozenset(),
    "sapo": frozenset({"tau_pos", "tau_neg"}),
    "geo_mean": frozenset(),
    "gpg": frozenset(),
    "clip_cov": frozenset({"clip_cov_ratio", "clip_cov_lb", "clip_cov_ub"}),
    "kl_cov": frozenset({"kl_cov_ratio", "ppo_kl_coef"}),
    "dppo_tv": frozenset(),
    "dppo_kl": frozenset(),
    "dro": frozenset({"dro_beta"}),
}
# Of these options: verl's defaults of the two bounds, which may have any sign, and shares of the tokens. All others are
# above 0.
COV_BOUNDS: Mapping[str, float] = {"clip_cov_lb": 1.0, "clip_cov_ub": 5.0}
TOKEN_SHARES = frozenset({"clip_cov_ratio", "kl_cov_ratio"})

# What a user's own function is called with, by name; the defaults of the signature may take more.
ESTIMATOR_ARGUMENTS = ("scores", "groups", "tasks", "lengths")
LOSS_ARGUMENTS = (
    "old_log_prob", "log_prob", "advantages", "response_mask", "loss_agg_mode", "config", "rollout_is_weights",
)  # fmt: skip

_PLACE = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"


class FunctionError(InputError):
    """A function that the recipe names cannot be used; one line names the key, the function and the reason."""


def _check(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, str) and value not in names and not re.fullmatch(_PLACE, value):
        near = difflib.get_close_matches(value, names, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"{value!r} is none of {', '.join(names)}, and no my_package.module:function{hint}")
    return value


def _pattern(names: Sequence[str]) -> str:
    return f"^({'|'.join(names)}|{_PLACE})$"


# One of the names, or the place of a function. The check comes first, since its message says more than the pattern's.
EstimatorName = Annotated[str, Field(pattern=_pattern(ESTIMATORS)), BeforeValidator(partial(_check, names=ESTIMATORS))]
PolicyLossName = Annotated[
    str,
    Field(pattern=_pattern(tuple(POLICY_LOSSES))),
    BeforeValidator(partial(_check, names=tuple(POLICY_LOSSES))),
]


def is_own(name: str) -> bool:
    """Whether a name is the place of a user's function."""
    return ":" in name


def check_functions(recipe: "Recipe") -> None:
    """Import the user's functions that the recipe names, and compare their signatures.

    Raises:
        FunctionError: one cannot be used.
    """
    algorithm = recipe.algorithm
    if is_own(algorithm.estimator):
        own_function("algorithm.estimator", algorithm.estimator, ESTIMATOR_ARGUMENTS)
    if is_own(algorithm.policy_loss):
        own_function("algorithm.policy_loss", algorithm.policy_loss, LOSS_ARGUMENTS)


def own_function(key: str, place: str, arguments: Sequence[str]) -> Callable[..., Any]:
    """The function at `my_package.module:function`, which takes `arguments` by name.

    Args:
        key: the recipe's key, for the message.

    Raises:
        FunctionError: there is no such module or function, or it takes other arguments.
    """
    module_name, _, name = place.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise FunctionError(
            f"{key} {place}: the module cannot be imported ({error}); install its package, or put its folder on "
            "PYTHONPATH, for the learner and on every node of its Ray cluster"
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise FunctionError(f"{key} {place}: {module_name} has no function {name}")
    try:
        inspect.signature(function).bind(**dict.fromkeys(arguments))
    except (TypeError, ValueError) as error:
        raise FunctionError(
            f"{key} {place}: it is called with the keyword arguments {', '.join(arguments)}, and does not take them "
            f"({error})"
        ) from error
    result: Callable[..., Any] = function
    return result
