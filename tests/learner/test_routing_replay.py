"""Replayed routes: the experts of the record, with the weights and gradients of the router that is trained.

The engine's router and the learner's differ by less than rounding here, and yet choose different experts: in the model
`tied` the rows of three of four routers' experts are the same but for 1e-7, so the second and third choice are a near
tie for every token. That is what different kernels do to a real model, where a few tokens in a hundred have such a tie.
A larger difference would change the experts' weights too, and with them what the experts give, under replay as well.
"""

import asyncio
import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from golongrl.engine.app import create_app
from golongrl.engine.config import EngineConfig
from golongrl.errors import GolongrlError
from golongrl.learner.batch.routes import RowRoutes, SampleRoutes
from golongrl.learner.batch.samples import Samples, Shard, shard
from golongrl.learner.batch.shared_prefix import shard_groups
from golongrl.learner.ranks.routing_replay import Replay, handed_down, install
from golongrl.recipe import Recipe, load
from golongrl.routes.groups import GroupRoutes
from golongrl.routes.model import routing_of
from golongrl.routes.reference import RoutesReference
from golongrl.routes.store import MARKER, read_routes, write_routes
from support.rank_process import run_ranks

EXPERTS, TOP_K, LAYERS = 4, 2, 2


def _model(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model


@contextmanager
def _recorded(model: PreTrainedModel) -> Iterator[list[torch.Tensor]]:
    """The routers' own choices, layer by layer."""
    found: list[torch.Tensor] = []
    hooks = [
        layer.mlp.gate.register_forward_hook(lambda _, __, chosen: found.append(chosen[2]))
        for layer in model.model.layers
    ]
    yield found
    for hook in hooks:
        hook.remove()


def _own_routes(model: PreTrainedModel, ids: torch.Tensor) -> np.ndarray:
    with torch.no_grad(), _recorded(model) as found:
        model(input_ids=ids)
    return torch.stack(found, dim=1).numpy().astype(np.uint8)


def _replay(experts: np.ndarray, recorded: np.ndarray | None = None) -> Replay:
    known = np.ones(len(experts), np.bool_) if recorded is None else recorded
    return Replay.of(RowRoutes(experts, known, len(experts)), "cpu")


def _checkpointed(model: PreTrainedModel, on: bool) -> None:
    if on:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    else:
        model.gradient_checkpointing_disable()


def _loss(model: PreTrainedModel, ids: torch.Tensor, replay: Replay | None) -> torch.Tensor:
    model.train()
    with handed_down(model.model, replay):
        return torch.log_softmax(model(input_ids=ids, use_cache=False).logits, -1)[..., 7].sum()


def _gradients(model: PreTrainedModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def _same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_replaying_the_routers_own_choice_changes_no_bit(tiny_mixture: Path, checkpointed: bool) -> None:
    model, ids = _model(tiny_mixture), torch.randint(3, 500, (2, 20))
    replay = _replay(_own_routes(model, ids))
    plain = _loss(model, ids, None)
    expected = _gradients(model, plain)
    install(model.model)
    _checkpointed(model, checkpointed)
    loss = _loss(model, ids, replay)
    assert torch.equal(loss, plain)
    assert _same(_gradients(model, loss), expected)
    assert float(expected["model.layers.0.mlp.gate.weight"].abs().max()) > 0
    assert replay.changed.tolist() == [0, 0]


def test_a_recomputed_pass_replays_its_own_routes(tiny_mixture: Path) -> None:
    """Two passes before the first backward, which computes both again, the second first."""
    model = _model(tiny_mixture)
    install(model.model)
    rng = np.random.default_rng(3)
    ids = [torch.randint(3, 500, (1, 30)) for _ in range(2)]
    routes = [np.argsort(rng.random((30, LAYERS, EXPERTS)))[..., :TOP_K].astype(np.uint8) for _ in range(2)]
    expected = [_gradients(model, _loss(model, ids[i], _replay(routes[i]))) for i in range(2)]
    _checkpointed(model, True)
    losses = [_loss(model, ids[i], _replay(routes[i])) for i in range(2)]
    for i in (1, 0):
        assert _same(_gradients(model, losses[i]), expected[i])
    assert not _same(*expected)


def test_the_routers_gradient_is_that_of_the_recorded_experts(tiny_mixture: Path) -> None:
    """Weights of the recorded experts by the current router, against a formula in which the choice is a mask."""
    model = _model(tiny_mixture)
    block = model.model.layers[0].mlp
    hidden = torch.randn(12, 32, requires_grad=True)
    routes = np.argsort(np.random.default_rng(1).random((12, EXPERTS)))[:, :TOP_K]
    mask = torch.full((12, EXPERTS), -torch.inf).scatter(1, torch.from_numpy(routes), 0.0)
    weight = torch.softmax(hidden @ block.gate.weight.T + mask, dim=-1)
    every = [block.experts(hidden, torch.full((12, 1), expert), torch.ones(12, 1)) for expert in range(EXPERTS)]
    expected = (torch.stack(every, dim=1) * weight[..., None]).sum(1)
    expected.square().sum().backward()
    gradients = block.gate.weight.grad.clone(), hidden.grad.clone()
    model.zero_grad()
    hidden.grad = None
    install(model.model)
    seen: list[torch.Tensor] = []
    # In the layer's place, so that its attention does not matter.
    layer = model.model.layers[0]
    layer.forward = lambda states, **_: (seen.append(block(states)), states)[1]
    both = np.repeat(routes[:, None], LAYERS, axis=1).astype(np.uint8)
    with handed_down(model.model, _replay(both)):
        model.model(inputs_embeds=hidden[None], use_cache=False)
    torch.testing.assert_close(seen[0][0], expected)
    seen[0].square().sum().backward()
    torch.testing.assert_close(block.gate.weight.grad, gradients[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(hidden.grad, gradients[1], rtol=1e-4, atol=1e-4)


def test_what_is_not_recorded_is_the_routers_choice(tiny_mixture: Path) -> None:
    model, ids = _model(tiny_mixture), torch.randint(3, 500, (1, 20))
    own = _own_routes(model, ids)
    other = ((own + 1) % EXPERTS).astype(np.uint8)
    install(model.model)
    first = np.arange(20) < 10
    replay = _replay(other, first)
    with torch.no_grad(), handed_down(model.model, replay), _recorded(model) as used:
        model(input_ids=ids)
    used_experts = torch.stack(used, dim=1).numpy()
    assert (used_experts[:10] == other[:10]).all()
    assert (used_experts[10:, 0] == own[10:, 0]).all(), "nothing before the first router of these depends on routes"
    assert replay.changed.tolist()[0] == 10
    assert replay.replayed.tolist() == [10, 10]
    with torch.no_grad(), _recorded(model) as used:
        model(input_ids=ids)
    assert (torch.stack(used, dim=1).numpy() == own).all(), "the next pass has no routes"


def test_a_record_that_names_an_expert_twice_is_none(tiny_mixture: Path) -> None:
    """The weights of an expert that is there twice would be counted twice."""
    model, ids = _model(tiny_mixture), torch.randint(3, 500, (1, 20))
    own = _own_routes(model, ids)
    with torch.no_grad():
        expected = model(input_ids=ids).logits
    install(model.model)
    holes = own.copy()
    holes[:5] = 0
    holes[7, 1] = 3
    replay = _replay(holes)
    with torch.no_grad(), handed_down(model.model, replay):
        assert torch.equal(model(input_ids=ids).logits, expected)
    assert (replay.replayed.tolist(), replay.changed.tolist()) == ([15, 14], [0, 0])


def test_models_whose_routers_are_not_known_are_refused(tiny_model: Path, tiny_mixture: Path) -> None:
    with pytest.raises(GolongrlError, match=r"learner\.routing_replay: the model has no routers"):
        install(_model(tiny_model).model)
    model = _model(tiny_mixture).model
    model.layers[1].mlp.gate = torch.nn.Linear(32, EXPERTS)
    with pytest.raises(GolongrlError, match=r"learner\.routing_replay: the router Linear is not one"):
        install(model)


# -- in the ranks ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sampled:
    """What an engine with the folder `engine` recorded; `learner` has another router, by less than rounding."""

    engine: Path
    learner: Path
    routes: Path
    samples: Samples
    advantages: np.ndarray


def _with_routers(source: Path, target: Path, rows: dict[str, torch.Tensor]) -> Path:
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    weights = load_file(source / "model.safetensors")
    save_file({**weights, **rows}, target / "model.safetensors", metadata={"format": "pt"})
    return target


def _near_ties(folder: Path, seed: int) -> dict[str, torch.Tensor]:
    """Routers in which all experts but the first have the first one's row of them, but for 1e-7."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        if name.endswith("mlp.gate.weight"):
            noise = 1e-7 * torch.randn(EXPERTS - 1, weight.shape[1], generator=generator)
            found[name] = torch.cat([weight[:1], weight[1:2] + noise])
    return found


@pytest.fixture(scope="module")
def sampled(tiny_mixture: Path, tmp_path_factory: pytest.TempPathFactory) -> Sampled:
    folder = tmp_path_factory.mktemp("sampled")
    engine = _with_routers(tiny_mixture, folder / "engine", _near_ties(tiny_mixture, 1))
    learner = _with_routers(tiny_mixture, folder / "learner", _near_ties(tiny_mixture, 2))
    store = folder / "routes"
    store.mkdir()
    (store / MARKER).write_text("{}")
    rng = np.random.default_rng(7)
    prompts = [rng.integers(3, 500, size=int(rng.integers(3, 14))).astype(np.int32) for _ in range(4)]
    responses, logprobs, owner, references = [], [], [], []
    for index, answers in enumerate(asyncio.run(_generated(engine, prompts))):
        found = [_rows(answer) for answer in answers]
        prompt = len(prompts[index])
        routes = GroupRoutes(found[0][:prompt], tuple(rows[prompt:] for rows in found), EXPERTS)
        assert all((rows[:prompt] == routes.prompt).all() for rows in found), "the prompt is computed once"
        references.append(write_routes(store, f"0-{index}.00000000.routes", routes))
        for answer in answers:
            scores, ids, _ = zip(*answer["meta_info"]["output_token_logprobs"], strict=True)
            responses.append(np.array(ids, np.int32))
            logprobs.append(np.array(scores, np.float32))
            owner.append(index)
    samples = Samples(
        prompts=prompts,
        uids=[f"0-{i}" for i in range(len(prompts))],
        group=np.array(owner, np.int64),
        tasks=["EM"] * len(owner),
        responses=responses,
        logprobs=logprobs,
        rewards=np.ones(len(owner), np.float32),
        finished=np.ones(len(owner), np.bool_),
        routes=_sample_routes(engine, references),
    )
    return Sampled(engine, learner, store, samples, rng.normal(size=len(owner)).astype(np.float32))


async def _generated(model: Path, prompts: list[np.ndarray]) -> list[list[dict[str, Any]]]:
    """Three answers to each prompt by the embedded engine, as SGLang's API has them."""
    app = create_app(EngineConfig(model_path=model))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://engine", timeout=120) as client,
    ):
        bodies = [
            {
                "input_ids": prompt.tolist(), "return_logprob": True, "return_routed_experts": True,
                "sampling_params": {"n": 3, "temperature": 0.9, "max_new_tokens": 4 + 4 * i, "sampling_seed": i},
            }
            for i, prompt in enumerate(prompts)
        ]  # fmt: skip
        answers = await asyncio.gather(*(client.post("/generate", json=body) for body in bodies))
    return [answer.json() for answer in answers]


def _rows(answer: dict[str, Any]) -> np.ndarray:
    flat = np.frombuffer(base64.b64decode(answer["meta_info"]["routed_experts"]), np.int32)
    return flat.reshape(-1, LAYERS, TOP_K).astype(np.uint8)


def _sample_routes(model: Path, references: list[RoutesReference]) -> SampleRoutes:
    routing = routing_of(json.loads((model / "config.json").read_text()))
    assert routing is not None
    return SampleRoutes(routing, list(references), [0, 1, 2] * len(references))


def _recipe(model: Path, *overrides: str) -> Recipe:
    return load(
        "quickstart",
        [
            f"model.path={model}", "learner.lr=0.001", "learner.lr_warmup_steps=0", "learner.max_tokens_per_rank=64",
            "data.max_prompt_tokens=40", "data.context_tokens=40", "rollout.max_response_tokens=24", "rollout.n=3",
            "rollout.temperature=0.9", *overrides,
        ],
    )  # fmt: skip


SHARED, PLAIN = "learner.shared_prefix=true", "learner.shared_prefix=false"
FUSED, KEPT = "learner.fused_linear_cross_entropy=true", "learner.gradient_checkpointing=false"
PACKED, PADDED = "learner.remove_padding=true", "learner.remove_padding=false"


@dataclass(frozen=True)
class Updated:
    """Of one recipe: the largest difference of log-probs from the engine's, metrics, AdamW's averages."""

    difference: float
    metrics: dict[str, float]
    moments: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Choice:
    overrides: tuple[str, ...]
    replayed: bool = True


def _run(sampled: Sampled, out: Path, choices: list[Choice], *, ranks: int = 1, **more: Any) -> list[Updated]:
    recipes = [_recipe(sampled.learner, f"learner.ranks={ranks}", *choice.overrides) for choice in choices]
    minis = [_cut(sampled, recipe, choice) for recipe, choice in zip(recipes, choices, strict=True)]
    routes = [str(sampled.routes) if choice.replayed else None for choice in choices]
    results = run_ranks(ranks, recipes, minis, out, log_probs=True, routes=routes, **more)
    return [
        Updated(
            _difference(out, index, minis[index], recipe), results[0][index], torch.load(out / f"moments-{index}.pt")
        )
        for index, recipe in enumerate(recipes)
    ]


def _cut(sampled: Sampled, recipe: Recipe, choice: Choice) -> list[list[Shard]]:
    ranks = recipe.learner.ranks // recipe.learner.ulysses
    samples = sampled.samples if choice.replayed else replace(sampled.samples, routes=None)
    cut = partial(shard_groups, pairs_per_token=96.0) if recipe.learner.shared_prefix else shard
    return cut(samples, sampled.advantages, ranks=ranks, mini_batch_groups=None, longest=64)


def _difference(out: Path, index: int, minis: list[list[Shard]], recipe: Recipe) -> float:
    found = []
    for rank in range(recipe.learner.ranks):
        (scores,) = torch.load(out / f"log_probs-{index}-{rank}.pt")
        found.append(np.abs(scores.numpy() - minis[0][rank // recipe.learner.ulysses].logprobs).max())
    return float(max(found))


def _plain_gradients(sampled: Sampled) -> dict[str, torch.Tensor]:
    """Of the first update, as clipped: sequence by sequence in plain torch, the recorded choice as a mask."""
    model, s = _model(sampled.engine), sampled.samples
    assert s.routes is not None
    for index, layer in enumerate(model.model.layers):
        layer.mlp.forward = partial(_masked_block, layer.mlp, index)
    terms = []
    for i, ids in enumerate(s.responses):
        prompt, reference = s.prompts[s.group[i]], s.routes.groups[s.group[i]]
        assert reference is not None
        routes = read_routes(sampled.routes, reference)
        # Nothing uses the output of the last token, which has no record.
        rows = np.concatenate([routes.prompt, routes.responses[s.routes.place[i]], routes.prompt[-1:]])
        _masked_block.rows = torch.from_numpy(rows.astype(np.int64))  # type: ignore[attr-defined]
        whole = torch.from_numpy(np.concatenate([prompt, ids]).astype(np.int64))[None]
        logits = model(input_ids=whole).logits[0, len(prompt) - 1 : -1] / 0.9
        scores = torch.log_softmax(logits, -1).gather(1, whole[0, len(prompt) :, None])[:, 0]
        terms.append(-float(sampled.advantages[i]) * scores)
    torch.cat(terms).mean().backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def _masked_block(block: Any, index: int, states: torch.Tensor) -> torch.Tensor:
    """All experts on all tokens; the softmax is over the recorded ones."""
    rows = _masked_block.rows[:, index]  # type: ignore[attr-defined]
    flat = states[0]
    mask = torch.full((len(flat), EXPERTS), -torch.inf).scatter(1, rows, 0.0)
    weight = torch.softmax(flat @ block.gate.weight.T + mask, dim=-1)
    one = torch.ones(len(flat), 1)
    every = [block.experts(flat, torch.full((len(flat), 1), expert), one) for expert in range(EXPERTS)]
    return (torch.stack(every, dim=1) * weight[..., None]).sum(1)[None]


def _check(updated: Updated, expected: dict[str, torch.Tensor], which: object) -> None:
    assert updated.difference < 1e-5, which
    assert updated.metrics["routing/replayed_share"] == 1.0, which
    assert 0.2 < updated.metrics["routing/changed_share"] < 0.9, which
    assert updated.metrics["rollout_corr/rollout_is_max"] == pytest.approx(1, abs=1e-4), which
    assert updated.moments.keys() == expected.keys()
    for name, gradient in expected.items():
        found = updated.moments[name] / (1 - 0.9)
        assert float((found - gradient).abs().max()) < 1e-3 * float(gradient.abs().max()), (which, name)


@pytest.mark.full
def test_log_probs_and_gradients_are_those_of_the_experts_that_were_sampled(sampled: Sampled, tmp_path: Path) -> None:
    """Packed rows with prompts computed once or not, fused or not, in micro-batches, checkpointed or not."""
    choices = [Choice((SHARED,)), Choice((SHARED, FUSED, KEPT)), Choice((PLAIN, PACKED)), Choice((SHARED,), False)]
    *replayed, own = _run(sampled, tmp_path / "ranks", choices)
    expected = _plain_gradients(sampled)
    for choice, each in zip(choices, replayed, strict=False):
        _check(each, expected, choice)
    assert own.difference > 0.1
    assert "routing/replayed_share" not in own.metrics
    name = "model.layers.0.mlp.experts.down_proj"
    off = float((own.moments[name] / (1 - 0.9) - expected[name]).abs().max())
    assert off > 0.05 * float(expected[name].abs().max()), "without replay other experts learn"


@pytest.mark.full
def test_padded_and_fused_rows_replay_too(sampled: Sampled, tmp_path: Path) -> None:
    choices = [Choice((PLAIN, PACKED, FUSED)), Choice((PLAIN, PADDED)), Choice((PLAIN, PADDED, KEPT))]
    expected = _plain_gradients(sampled)
    for choice, each in zip(choices, _run(sampled, tmp_path / "ranks", choices), strict=True):
        _check(each, expected, choice)


@pytest.mark.full
def test_two_ranks_replay_what_each_has(sampled: Sampled, tmp_path: Path) -> None:
    """Half of the groups each, or half of every packed row each."""
    split = ("learner.ulysses=2", PACKED)
    choices = [Choice((SHARED,)), Choice((SHARED, *split)), Choice((SHARED, *split, FUSED)), Choice((PLAIN, PACKED))]
    expected = _plain_gradients(sampled)
    for choice, each in zip(choices, _run(sampled, tmp_path / "ranks", choices, ranks=2), strict=True):
        _check(each, expected, choice)


@pytest.mark.full
def test_the_reference_policy_chooses_its_experts_itself(sampled: Sampled, tmp_path: Path) -> None:
    """It has the learner's weights here, so that only the experts differ."""
    choices = [Choice((prompts, "algorithm.kl_loss_coef=0.1")) for prompts in (SHARED, PLAIN)]
    both = _run(sampled, tmp_path / "ranks", [*choices, replace(choices[0], replayed=False)])
    shared, plain, own = (updated.metrics["actor/kl_loss"] for updated in both)
    assert shared == pytest.approx(plain, rel=0.1)
    assert shared > 1e-3
    assert own == pytest.approx(0, abs=1e-6)
    assert all(updated.difference < 1e-5 for updated in both[:2])
