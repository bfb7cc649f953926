"""Estimators and losses by name, and the user's own: which strings a recipe accepts, and what is said of the others."""

import sys
from pathlib import Path

import pytest

from golongrl.recipe import RecipeError, load
from golongrl.recipe.functions import (
    ESTIMATORS,
    LOSS_ARGUMENTS,
    POLICY_LOSSES,
    FunctionError,
    check_functions,
    own_function,
)

OWN = """
def loss(old_log_prob, log_prob, advantages, response_mask, loss_agg_mode, config, rollout_is_weights=None): ...
def any_loss(log_prob, **others): ...
def two(scores, groups): ...
def positional(old_log_prob, log_prob, /, **others): ...
thing = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_losses.py").write_text(OWN)
    (tmp_path / "my_broken.py").write_text("import no_such_package_at_all\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("my_losses", "my_broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "my_losses"


@pytest.mark.parametrize("name", [*ESTIMATORS, "my.package:estimate"])
def test_estimators(name: str) -> None:
    assert load("quickstart", [f"algorithm.estimator={name}"]).algorithm.estimator == name


@pytest.mark.parametrize("name", [*POLICY_LOSSES, "a:b"])
def test_losses(name: str) -> None:
    options = ["algorithm.policy_loss_options.dro_beta=0.1"] if name == "dro" else []
    assert load("quickstart", [f"algorithm.policy_loss={name}", *options]).algorithm.policy_loss == name


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("algorithm.estimator=rlooo", r"algorithm.estimator: 'rlooo' is none of .*; did you mean rloo\?"),
        ("algorithm.estimator=my package:f", "is none of .*, and no my_package.module:function"),
        ("algorithm.estimator=a:b:c", "is none of"),
        ("algorithm.policy_loss=gsp", r"did you mean gspo\?"),
        ("algorithm.policy_loss=bypass_mode", "is none of"),
        ("algorithm.policy_loss_options.tau_pos=1.0", "tau_pos: the loss vanilla takes none"),
        ("algorithm.policy_loss=dro", "algorithm.policy_loss dro needs algorithm.policy_loss_options.dro_beta"),
        ("algorithm.entropy_low=0.9", "entropy_low 0.9 exceeds algorithm.entropy_high 0.4; at most 0.4 works"),
        ("data.task_weights={}", "data.task_weights has no task type"),
        ("data.task_weights={T1: 0}", "data.task_weights.T1: Input should be greater than 0"),
        ("data.task_weights={T10: 1}", "data.task_weights.T10"),
    ],
)
def test_what_is_refused(change: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load("quickstart", [change])


def test_options_of_a_loss_are_its_own() -> None:
    sapo = ["algorithm.policy_loss=sapo", "algorithm.policy_loss_options={tau_pos: 1.1, beta: 2.0}"]
    with pytest.raises(RecipeError, match=r"policy_loss_options\.beta: the loss sapo takes tau_neg, tau_pos"):
        load("quickstart", sapo)


def test_weights_of_types_that_are_not_there() -> None:
    with pytest.raises(RecipeError, match=r"data.task_weights.T4: T4 is not in data.tasks \(T1, T2\)"):
        load("quickstart", ["data.tasks=[T1, T2]", "data.task_weights={T1: 1, T4: 2}"])


@pytest.mark.parametrize("function", ["loss", "any_loss"])
def test_own_functions_that_fit(own: str, function: str) -> None:
    assert own_function("k", f"{own}:{function}", LOSS_ARGUMENTS).__name__ == function
    check_functions(load("quickstart", [f"algorithm.policy_loss={own}:{function}"]))


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("my_losses:nothing", "algorithm.policy_loss my_losses:nothing: my_losses has no function nothing"),
        ("my_losses:thing", "has no function thing"),
        ("my_losses:two", "is called with the keyword arguments old_log_prob, .*, and does not take them"),
        ("my_losses:positional", "does not take them"),
        ("no_such_module:f", "cannot be imported .*PYTHONPATH"),
        ("my_broken:f", "no_such_package_at_all"),
    ],
)
def test_own_functions_that_do_not(own: str, place: str, said: str) -> None:
    with pytest.raises(FunctionError, match=said):
        check_functions(load("quickstart", [f"algorithm.policy_loss={place}"]))
    with pytest.raises(FunctionError, match=r"algorithm\.estimator"):
        check_functions(load("quickstart", [f"algorithm.estimator={place}"]))
