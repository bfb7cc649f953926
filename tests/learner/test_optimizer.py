"""After a resume the optimizer's settings are the recipe's from the resumed step on; its moments the checkpoint's."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from verl.utils.torch_functional import get_constant_schedule_with_warmup

from golongrl.learner.ranks.optimizer import recipe_settings
from golongrl.recipe import load
from support.rank_process import run_ranks
from support.small_batch import minis

DONE = 4


def _built(lr: float = 0.1, warmup: int = 3, **settings: Any) -> tuple[torch.nn.Linear, Any, Any]:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, **{"weight_decay": 0.1, "betas": (0.9, 0.99), **settings})
    return model, optimizer, get_constant_schedule_with_warmup(optimizer, num_warmup_steps=warmup)


def _steps(model: torch.nn.Linear, optimizer: Any, scheduler: Any, count: int) -> list[float]:
    rates = []
    for step in range(count):
        model(torch.full((1, 3), float(step + 1))).square().sum().backward()
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
    return rates


def _resumed(**settings: Any) -> tuple[torch.nn.Linear, Any, Any]:
    model, optimizer, scheduler = _built()
    _steps(model, optimizer, scheduler, DONE)
    other, resumed, schedule = _built(**settings)
    with recipe_settings(resumed, schedule):
        other.load_state_dict(model.state_dict())
        resumed.load_state_dict(optimizer.state_dict())
        schedule.load_state_dict(scheduler.state_dict())
    for before, after in zip(optimizer.state.values(), resumed.state.values(), strict=True):
        assert torch.equal(before["exp_avg"], after["exp_avg"])
        assert torch.equal(before["exp_avg_sq"], after["exp_avg_sq"])
        assert before["step"] == after["step"] == DONE
    return other, resumed, schedule


@pytest.mark.parametrize("setting", [{"weight_decay": 0.0}, {"betas": (0.5, 0.6)}, {"eps": 1e-3}])
def test_the_recipes_settings_hold(setting: dict[str, Any]) -> None:
    _, optimizer, _ = _resumed(**setting)
    for group in optimizer.param_groups:
        assert {name: group[name] for name in setting} == setting


@pytest.mark.parametrize(
    ("lr", "warmup", "rates"),
    [
        (0.1, 3, [0.1, 0.1, 0.1]),
        (0.02, 3, [0.02, 0.02, 0.02]),
        (0.1, 0, [0.1, 0.1, 0.1]),
        # A longer warm-up has not ended by the resumed step.
        (0.1, 5, [0.08, 0.1, 0.1]),
        (0.02, 8, [0.01, 0.0125, 0.015]),
    ],
)
def test_the_schedule_is_the_recipes_at_the_resumed_step(lr: float, warmup: int, rates: list[float]) -> None:
    assert _steps(*_resumed(lr=lr, warmup=warmup), count=3) == pytest.approx(rates)


@pytest.mark.parametrize("warmup", [0, 3, 9])
def test_an_unchanged_recipe_resumes_to_the_bit(warmup: int) -> None:
    straight = _built(warmup=warmup)
    _steps(*straight, count=DONE)
    model, optimizer, scheduler = _built(warmup=warmup)
    with recipe_settings(optimizer, scheduler):
        model.load_state_dict(straight[0].state_dict())
        optimizer.load_state_dict(copy.deepcopy(straight[1].state_dict()))
        scheduler.load_state_dict(straight[2].state_dict())
    assert _steps(*straight, count=5) == _steps(model, optimizer, scheduler, count=5)
    assert torch.equal(model.weight, straight[0].weight)


@pytest.mark.full
@pytest.mark.parametrize("ranks", [1, 2])
def test_ranks_take_them_from_the_recipe(ranks: int, tiny_model: Path, tmp_path: Path) -> None:
    """verl's own loader, and with another number of ranks the one that reshards."""

    def recipe(*overrides: str) -> Any:
        return load("quickstart", [f"model.path={tiny_model}", f"learner.ranks={ranks}", *overrides])

    first = load("quickstart", [f"model.path={tiny_model}", "learner.lr=0.01", "learner.lr_warmup_steps=0"])
    run_ranks(1, [first], [minis(1)], tmp_path / "first", save=str(tmp_path / "checkpoint"))
    changed = recipe(
        "learner.lr=0.0001", "learner.lr_warmup_steps=4", "learner.weight_decay=0.5", "learner.betas=[0.8, 0.95]"
    )
    metrics = run_ranks(
        ranks,
        [changed],
        [minis(ranks)],
        tmp_path / "second",
        load=str(tmp_path / "checkpoint"),
        save=str(tmp_path / "next"),
    )
    assert metrics[0][0]["actor/lr"] == pytest.approx(0.0001 * 2 / 4), "the rate after step 2 of a warm-up of 4"
    saved = torch.load(tmp_path / "next" / f"optim_world_size_{ranks}_rank_0.pt", weights_only=False)
    (group,) = saved["param_groups"]
    assert (group["weight_decay"], tuple(group["betas"]), group["initial_lr"]) == (0.5, (0.8, 0.95), 0.0001)
    assert {float(entry["step"]) for entry in saved["state"].values()} == {2.0}
