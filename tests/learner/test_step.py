"""A step of the ranks against a plain torch implementation of the same step, written apart from the program's code."""

import os
import pickle
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from golongrl.learner.batch.samples import Samples, Shard, shard
from golongrl.learner.batch.shared_prefix import shard_groups
from golongrl.recipe import Recipe, load
from support.rank_process import run_ranks

GROUPS, RESPONSES = 5, 4


PLAIN, SHARED = "learner.shared_prefix=false", "learner.shared_prefix=true"


def _recipe(model: Path, *overrides: str) -> Recipe:
    return load(
        "quickstart",
        [
            f"model.path={model}",
            PLAIN,
            "learner.lr=0.001",
            "learner.lr_warmup_steps=0",
            "learner.max_tokens_per_rank=64",
            "data.max_prompt_tokens=40",
            "data.context_tokens=40",
            "rollout.max_response_tokens=24",
            "rollout.n=4",
            "rollout.temperature=0.9",
            *overrides,
        ],
    )


@dataclass(frozen=True)
class Made:
    samples: Samples
    advantages: np.ndarray


@pytest.fixture(scope="module")
def made(tiny_model: Path) -> Made:
    """A batch whose behaviour policy is a noisy copy of the model, so that weights, clips and the veto all occur."""
    rng = np.random.default_rng(7)
    prompts = [rng.integers(3, 500, size=int(rng.integers(3, 14))).astype(np.int32) for _ in range(GROUPS)]
    responses = [
        rng.integers(3, 500, size=int(rng.integers(1, 15))).astype(np.int32) for _ in range(GROUPS * RESPONSES)
    ]
    owner = np.repeat(np.arange(GROUPS), RESPONSES)
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    logprobs = []
    for i, ids in enumerate(responses):
        with torch.no_grad():
            exact = _log_probs(model, prompts[owner[i]], ids, 0.9).numpy()
        logprobs.append((exact + rng.normal(0, 1.2, size=len(ids))).astype(np.float32))
    logprobs[3][0] += 20.0  # importance weight e^-20: this response is vetoed
    rewards = rng.random(len(responses)).astype(np.float32)
    rewards[5] = np.nan
    samples = Samples(
        prompts=prompts,
        uids=[f"0-{i}" for i in range(GROUPS)],
        group=owner,
        tasks=["EM"] * len(responses),
        responses=responses,
        logprobs=logprobs,
        rewards=rewards,
        finished=np.ones(len(responses), dtype=bool),
    )
    return Made(samples, rng.normal(size=len(responses)).astype(np.float32))


def _log_probs(model: torch.nn.Module, prompt: np.ndarray, response: np.ndarray, temperature: float) -> torch.Tensor:
    """Log-probabilities of the response's tokens, one sequence at a time: nothing to pad, nothing to pack."""
    ids = torch.from_numpy(np.concatenate([prompt, response]).astype(np.int64))[None]
    logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1] / temperature
    return torch.log_softmax(logits, dim=-1).gather(1, ids[0, len(prompt) :, None])[:, 0]


@dataclass(frozen=True)
class PlainStep:
    """What one step of AdamW in plain torch says and leaves: gradients as clipped, parameters as changed, by name."""

    loss: float
    norm: float
    gradients: dict[str, torch.Tensor]
    parameters: dict[str, torch.Tensor]


def _plain_step(model_path: Path, made: Made, lr: float, *, normalise: bool) -> PlainStep:
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    s = made.samples
    weights, trained = [], []
    for i, response in enumerate(s.responses):
        if np.isnan(s.rewards[i]):
            continue
        logp = _log_probs(model, s.prompts[s.group[i]], response, 0.9)
        old, behaviour = logp.detach(), torch.from_numpy(s.logprobs[i])
        importance = torch.exp(old - behaviour)
        weights.append(importance.clamp(0.5, 5.0))
        if importance.min() < 1e-4:
            continue
        ratio = torch.exp(logp - old)
        advantage = float(made.advantages[i])
        surrogate = torch.min(ratio * advantage, torch.clamp(ratio, 0.8, 1.28) * advantage)
        if advantage < 0:
            surrogate = torch.max(surrogate, torch.tensor(3.0 * advantage))
        trained.append((surrogate, weights[-1]))
    scale = torch.cat(weights).mean() if normalise else 1.0
    tokens = sum(len(weight) for _, weight in trained)
    loss = torch.stack([-(surrogate * weight / scale).sum() for surrogate, weight in trained]).sum() / tokens
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.1).step()
    named = dict(model.named_parameters())
    gradients = {name: parameter.grad for name, parameter in named.items() if parameter.grad is not None}
    return PlainStep(float(loss.detach()), float(norm), gradients, {name: p.detach() for name, p in named.items()})


def _cut(recipe: Recipe, made: Made, *, ranks: int, mini_batch_groups: int | None) -> list[list[Shard]]:
    cut = partial(shard_groups, pairs_per_token=96.0) if recipe.learner.shared_prefix else shard
    return cut(made.samples, made.advantages, ranks=ranks, mini_batch_groups=mini_batch_groups, longest=64)


def _compare(ranks: int, recipes: list[Recipe], tiny_model: Path, made: Made, out: Path, **more: Any) -> None:
    ulysses = recipes[0].learner.ulysses
    parts = ranks // ulysses
    minis = _cut(recipes[0], made, ranks=parts, mini_batch_groups=None)
    normalised = [recipe.algorithm.rollout_is_batch_normalize for recipe in recipes]
    plain = {normalise: _plain_step(tiny_model, made, lr=0.001, normalise=normalise) for normalise in set(normalised)}
    # The other ranks of a Ulysses group have no loss of their own to report.
    every = run_ranks(ranks, recipes, [minis] * len(recipes), out, **more)[::ulysses]
    for rank, results in enumerate(every):
        for index, metrics in enumerate(results):
            expected, where = plain[normalised[index]], f"rank {rank}, recipe {index}"
            assert metrics["actor/pg_loss"] == pytest.approx(expected.loss, rel=1e-5, abs=1e-5), where
            assert metrics["actor/grad_norm"] == pytest.approx(expected.norm, rel=1e-5), where
            assert metrics["rollout_corr/veto_ratio"] > 0
    for index, normalise in enumerate(normalised):
        expected = plain[normalise]
        _same_gradients(out / f"moments-{index}.pt", recipes[index].learner.betas[0], expected.gradients)
        for name, tensor in _exported(out / str(index), tiny_model).items():
            # Adam divides by the gradient's own size: of the smallest gradients only their rounding is left.
            gradient = expected.gradients[name].abs()
            felt = gradient > 1e-4 * gradient.max()
            want = expected.parameters[name][felt]
            torch.testing.assert_close(tensor.detach()[felt], want, atol=1e-5, rtol=1e-4, msg=f"{index} {name}")


def _same_gradients(moments: Path, beta: float, expected: dict[str, torch.Tensor]) -> None:
    """After one step AdamW's average is the share 1 - beta of the gradient: every tensor's, routers' too."""
    averages = torch.load(moments)
    assert averages.keys() == expected.keys()
    for name, gradient in expected.items():
        largest = float(gradient.abs().max())
        assert largest > 1e-6, f"{name}: nothing to compare"
        torch.testing.assert_close(
            averages[name] / (1 - beta),
            gradient,
            atol=1e-5 * largest,
            rtol=1e-5,
            msg=lambda m, name=name: f"{name}: {m}",
        )


def _exported(weights: Path, model: Path) -> dict[str, torch.Tensor]:
    """Parameters as transformers reads them from an export, which must name all of them."""
    assert _names(weights) == _names(model)
    shutil.copy(model / "config.json", weights)
    loaded, report = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    return dict(loaded.named_parameters())


def _names(folder: Path) -> list[str]:
    """Tensors of a folder's safetensors: an engine reads an export by the names of the original."""
    return sorted(name for path in folder.glob("*.safetensors") for name in load_file(path))


PACKED, FUSED = "learner.remove_padding=true", "learner.fused_linear_cross_entropy=true"
NORMALISED = "algorithm.rollout_is_batch_normalize=true"


def test_one_rank_equals_plain_torch(tiny_model: Path, made: Made, tmp_path: Path) -> None:
    """Padded and packed, with and without the fused cross-entropy, with importance weights of mean one."""
    choices = ([], [PACKED], [FUSED], [PACKED, FUSED], [PACKED, NORMALISED])
    _compare(1, [_recipe(tiny_model, *overrides) for overrides in choices], tiny_model, made, tmp_path)


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.full)])
def test_more_ranks_equal_plain_torch(ranks: int, tiny_model: Path, made: Made, tmp_path: Path) -> None:
    """19 trainable responses do not divide: fillers must weigh nothing. The weights' mean is of all ranks."""
    choices = ([], [PACKED], [PACKED, NORMALISED])
    recipes = [_recipe(tiny_model, f"learner.ranks={ranks}", *overrides) for overrides in choices]
    _compare(ranks, recipes, tiny_model, made, tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("prompts", [PLAIN, SHARED])
def test_kl_entropy_and_mini_batches(prompts: str, tiny_model: Path, made: Made, tmp_path: Path) -> None:
    """The reference policy is the initial one: no KL in the first update, some in the second of the same step."""
    recipe = _recipe(
        tiny_model, prompts, "algorithm.kl_loss_coef=0.1", "algorithm.entropy_coeff=0.01", "learner.lr=0.01",
        "queue.groups_per_step=5", "learner.mini_batch_groups=1",
    )  # fmt: skip
    whole, minis = (_cut(recipe, made, ranks=1, mini_batch_groups=groups) for groups in (None, 1))
    assert len(minis) == GROUPS
    ((first, later),) = run_ranks(1, [recipe, recipe], [whole, minis], tmp_path)
    assert first["actor/kl_loss"] == pytest.approx(0, abs=1e-6)
    assert first["actor/entropy_loss"] > 0
    assert later["actor/kl_loss"] > 1e-4
    assert later["actor/ppo_kl"] != 0


ULYSSES = ("learner.ranks=2", "learner.ulysses=2", "learner.remove_padding=true")


@pytest.mark.full
def test_ulysses_equals_plain_torch(tiny_model: Path, made: Made, tmp_path: Path) -> None:
    """Two ranks hold half of every sequence each; verl's splitting around a stand-in for the kernel."""
    flash = "model.attn_implementation=flash_attention_2"
    recipes = [
        _recipe(tiny_model, *ULYSSES, flash),
        _recipe(tiny_model, *ULYSSES, flash, "learner.fused_linear_cross_entropy=true"),
    ]
    _compare(2, recipes, tiny_model, made, tmp_path, flash=True)


def test_prompts_computed_once_equal_plain_torch(tiny_model: Path, made: Made, tmp_path: Path) -> None:
    """Fused and not, with and without checkpointed activations; groups are cut where they exceed a micro-batch."""
    kept = "learner.gradient_checkpointing=false"
    choices = ([], [kept], [FUSED], [FUSED, kept, NORMALISED])
    _compare(1, [_recipe(tiny_model, SHARED, *overrides) for overrides in choices], tiny_model, made, tmp_path)


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.full), pytest.param(8, marks=pytest.mark.full)])
def test_more_ranks_with_prompts_computed_once(ranks: int, tiny_model: Path, made: Made, tmp_path: Path) -> None:
    """Ranks have whole groups, so different numbers of responses and of micro-batches."""
    choices = ([], [FUSED, NORMALISED])
    recipes = [_recipe(tiny_model, SHARED, f"learner.ranks={ranks}", *overrides) for overrides in choices]
    _compare(ranks, recipes, tiny_model, made, tmp_path)


@pytest.mark.full
def test_ulysses_with_prompts_computed_once(tiny_model: Path, made: Made, tmp_path: Path) -> None:
    """Two ranks hold half of every packed row each: no stand-in, the attention makes the exchange itself."""
    choices = ([], [FUSED])
    recipes = [_recipe(tiny_model, SHARED, *ULYSSES, *overrides) for overrides in choices]
    _compare(2, recipes, tiny_model, made, tmp_path)


@pytest.mark.full
def test_ulysses_that_loses_the_other_slices_is_refused(tiny_model: Path, made: Made, tmp_path: Path) -> None:
    """sdpa is not what verl splits: each rank would attend within its own slice, and nothing would say so."""
    with pytest.raises(AssertionError, match=r"learner\.ulysses 2: the last part of a sequence does not see the first"):
        _compare(2, [_recipe(tiny_model, *ULYSSES)], tiny_model, made, tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_mixture_of_experts_equals_plain_torch(ranks: int, tiny_mixture: Path, made: Made, tmp_path: Path) -> None:
    """Loss, gradient norm, every gradient and every weight after the step, routers and experts included."""
    override = f"learner.ranks={ranks}"
    recipes = [_recipe(tiny_mixture, override), _recipe(tiny_mixture, override, PACKED)]
    _compare(ranks, recipes, tiny_mixture, made, tmp_path)
    shared = [_recipe(tiny_mixture, override, SHARED, *more) for more in ([], [FUSED])]
    _compare(ranks, shared, tiny_mixture, made, tmp_path / "shared")
    assert "model.layers.0.mlp.gate.weight" in torch.load(tmp_path / "moments-0.pt")


OWN_LOSS = """
import torch
from verl.trainer.ppo.core_algos import agg_loss


def clipped(old_log_prob, log_prob, advantages, response_mask, loss_agg_mode, config, rollout_is_weights=None):
    ratio = torch.exp(log_prob - old_log_prob)
    gain = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.28) * advantages)
    gain = torch.where(advantages < 0, torch.maximum(gain, 3.0 * advantages), gain)
    loss = agg_loss(-gain * rollout_is_weights, response_mask, loss_agg_mode, **config.global_batch_info)
    return loss, {"actor/mine": 7.0}
"""


def test_the_users_own_loss_is_the_one_that_trains(
    tiny_model: Path, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The formula of the plain step, handed in as a function: a rank imports it by its name."""
    (tmp_path / "my_losses.py").write_text(OWN_LOSS)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    recipe = _recipe(tiny_model, SHARED, "algorithm.policy_loss=my_losses:clipped")
    _compare(1, [recipe], tiny_model, made, tmp_path / "ranks")
    ((metrics,),) = [pickle.loads((tmp_path / "ranks" / "metrics-0.pkl").read_bytes())]
    assert metrics["actor/mine"] == 7.0


LOSSES = ("gspo", "cispo", "geo_mean", "sapo", "gpg")


@pytest.mark.full
def test_losses_by_name_differ_and_do_not_depend_on_how_prompts_are_computed(
    tiny_model: Path, made: Made, tmp_path: Path
) -> None:
    choices = [("vanilla", PLAIN)] + [(loss, prompts) for loss in LOSSES for prompts in (PLAIN, SHARED)]
    # The ratios of a policy to itself are 1, where most losses have one gradient.
    away = "algorithm.proximal=behaviour"
    recipes = [_recipe(tiny_model, prompts, away, f"algorithm.policy_loss={loss}") for loss, prompts in choices]
    minis = [_cut(recipe, made, ranks=1, mini_batch_groups=None) for recipe in recipes]
    (results,) = run_ranks(1, recipes, minis, tmp_path)
    norms = dict(zip(choices, (metrics["actor/grad_norm"] for metrics in results), strict=True))
    for loss in LOSSES:
        assert norms[loss, SHARED] == pytest.approx(norms[loss, PLAIN], rel=1e-5), loss
        assert norms[loss, PLAIN] != pytest.approx(norms["vanilla", PLAIN], rel=1e-3), loss


def test_a_gradient_that_is_not_finite_leaves_the_weights_as_they_are(
    tiny_model: Path, made: Made, tmp_path: Path
) -> None:
    recipe = _recipe(tiny_model)
    broken = made.advantages.copy()
    broken[0] = np.inf
    (good, bad) = (
        shard(made.samples, advantages, ranks=1, mini_batch_groups=None, longest=64)
        for advantages in (made.advantages, broken)
    )
    (results,) = run_ranks(1, [recipe, recipe], [good, bad], tmp_path / "out")
    assert [result["actor/updates_skipped"] for result in results] == [0, 1]
    before, trained, skipped = (
        load_file(folder / "model.safetensors")
        for folder in (tiny_model, tmp_path / "out" / "0", tmp_path / "out" / "1")
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in skipped.items())
    assert not any(torch.equal(tensor, before[name]) for name, tensor in trained.items())
