"""What a learner publishes is what an engine holds: checked by the engine's own checksums, to the bit.

The expected checksums are made here from the published files alone, so they are right or wrong by themselves: SHA-256
of each tensor's bytes, first 16 hexadecimal digits, in the layout that the engine keeps (SGLang joins projections).
"""

import asyncio
import hashlib
import itertools
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from _pytest.mark import ParameterSet
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from golongrl.learner.weights.store import WeightStore
from golongrl.local.plan import EngineKind
from golongrl.queue import WeightsRef
from golongrl.recipe import Recipe
from golongrl.rollout.sglang.answers import ModelInfo
from golongrl.rollout.sglang.client import EngineClient
from golongrl.rollout.sglang.sampling import SamplingParams
from golongrl.rollout.weights.adopt import Confirmed
from golongrl.rollout.weights.local_copy import LocalCopy
from golongrl.rollout.weights.policy import Mode
from rollout.harness import adopted
from support.engine_process import engine_process
from support.learner_run import learner_run, small_recipe
from support.tiny_model import VOCABULARY

STEPS = 2
GREEDY = 24
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

# Each trains first. In `make test`, rollout/test_receive and engine/test_broadcast compare what was sent.
pytestmark = [pytest.mark.timeout(900), pytest.mark.full]


@dataclass(frozen=True)
class Trained:
    """A run that ended: its versions as they were announced, and its final export."""

    recipe: Recipe
    versions: list[WeightsRef]
    export: Path


@pytest.fixture(scope="module")
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The whole learner for two steps: version 0 from the model folder, 1 and 2 from a rank."""
    model, dtype = request.param
    return asyncio.run(_train(tmp_path_factory.mktemp("trained"), request.getfixturevalue(model), dtype))


async def _train(root: Path, model: Path, dtype: str) -> Trained:
    overrides = [f"learner.steps={STEPS}", "learner.keep_weights=3", "model.context_length=1024"]
    recipe = small_recipe(model, f"model.dtype={dtype}", *overrides)
    async with learner_run(root, recipe) as run:
        assert await run.ended() == 0, run.log[-4000:]
        store = WeightStore(root / "weights")
        manifests = [store.manifest(version) for version in range(STEPS + 1)]
        versions = [store.reference(manifest) for manifest in manifests if manifest is not None]
        async with run.queue() as queue:
            assert await queue.weights() == versions[STEPS]
    return Trained(recipe, versions, root / "hf")


def expected(folder: Path, kind: EngineKind) -> dict[str, str]:
    """Checksums of an engine that holds the weights in `folder`."""
    tensors: dict[str, torch.Tensor] = {}
    for path in folder.glob("*.safetensors"):
        tensors |= load_file(path)
    if kind == "embedded":
        # In float32 whatever the files hold; a tied head is named beside the embedding.
        tensors.setdefault("lm_head.weight", tensors["model.embed_tokens.weight"])
        return {name: _hash(tensor.float()) for name, tensor in tensors.items()}
    joined: dict[str, list[torch.Tensor]] = {}
    for name, tensor in sorted(tensors.items(), key=lambda item: _place(item[0])):
        joined.setdefault(_whole(name), []).append(tensor)
    return {name: _hash(torch.cat(parts)) for name, parts in joined.items()}


def _whole(name: str) -> str:
    """The tensor of SGLang's that a published one is part of."""
    for part, whole in (
        (r"experts\.\d+\.(gate|up)_proj\.weight", "experts.w13_weight"),
        (r"experts\.\d+\.down_proj\.weight", "experts.w2_weight"),
        (r"\b[qkv]_proj\b", "qkv_proj"),
        (r"\b(gate|up)_proj\b", "gate_up_proj"),
    ):
        name = re.sub(part, whole, name)
    return name


def _place(name: str) -> tuple[int, int]:
    """Where it stands there: by expert, then by projection."""
    expert = re.search(r"experts\.(\d+)", name)
    parts = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
    return int(expert[1]) if expert else 0, next((place for place, part in enumerate(parts) if part in name), 0)


def _hash(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()[:16]


def _run(kind: EngineKind, model: str, dtype: str) -> ParameterSet:
    return pytest.param(kind, (model, dtype), id=f"{kind}-{model}-{dtype}")


@pytest.mark.parametrize(
    ("kind", "trained"),
    [
        _run("embedded", "tiny_model", "float32"),
        _run("embedded", "tiny_mixture", "float32"),
        _run("sglang", "tiny_model", "float32"),
        _run("sglang", "tiny_model", "bfloat16"),
        _run("sglang", "tiny_mixture", "float32"),
    ],
    indirect=["trained"],
)
async def test_adopted_weights_are_the_published_ones(kind: EngineKind, trained: Trained, tmp_path: Path) -> None:
    """From version 0 on, one after the other; then an engine that starts from the final export holds the same."""
    initial, *later = trained.versions
    # A version may be stored as what changed: in bfloat16 most elements stay as they are.
    copy = LocalCopy(tmp_path / "weights")
    with engine_process(kind, Path(initial.path), trained.recipe, tmp_path / "engine.log") as url:
        async with EngineClient(url) as engine:
            held: Confirmed | None = None
            seen = [await engine.checksums()]
            assert seen[0] == expected(Path(initial.path), kind)
            for ref, mode in zip(later, (Mode.DRAIN, Mode.IN_PLACE), strict=True):
                folder = copy.fetch(ref).folder
                held = await adopted(engine, ref, mode, held, folder=folder)
                assert held.info == ModelInfo(str(folder), str(ref.version))
                assert await engine.model_info() == held.info
                seen.append(await engine.checksums())
                assert seen[-1] == expected(folder, kind)
    for before, after in itertools.pairwise(seen):
        assert before.keys() == after.keys()
        assert all(before[name] != after[name] for name in before), "a tensor that no step changed"

    with engine_process(kind, trained.export, trained.recipe, tmp_path / "fresh.log") as url:
        async with EngineClient(url) as engine:
            assert await engine.checksums() == seen[-1]
            await _same_answers(engine, trained.export, DTYPES[trained.recipe.model.dtype])


async def _same_answers(engine: EngineClient, folder: Path, dtype: torch.dtype) -> None:
    """transformers, on the same folder, gives the engine's log-probabilities and finds no better token anywhere."""
    tolerance = 1e-4 if dtype == torch.float32 else 0.1  # eight bits of mantissa at every layer
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    prompt = np.array(AutoTokenizer.from_pretrained(folder).encode("def inspect(object):"), dtype=np.int32)
    answer = await engine.generate(prompt, SamplingParams(0.0, 1.0, GREEDY), rid="greedy", vocab_size=VOCABULARY)
    assert len(answer.ids) == GREEDY
    ids = torch.from_numpy(np.concatenate([prompt, answer.ids]).astype(np.int64))
    with torch.no_grad():
        logits = model(input_ids=ids[None]).logits[0, len(prompt) - 1 : -1]
    log_probs = torch.log_softmax(logits.float(), dim=-1)
    chosen = log_probs.gather(1, ids[len(prompt) :, None])[:, 0]
    assert float((chosen - torch.from_numpy(answer.logprobs)).abs().max()) < tolerance
    assert float((log_probs.amax(dim=1) - chosen).max()) < tolerance
    if dtype == torch.float32:
        greedy = model.generate(ids[None, : len(prompt)], max_new_tokens=GREEDY, do_sample=False)
        assert greedy[0].tolist() == ids.tolist()
