"""No request gets keys and values of other weights: what an engine caches of a prompt belongs to one version.

With the real SGLang this also shows that it delivers the key: without it, an update that keeps the cache is seen in
`cached_tokens`.
"""

import asyncio
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, PreTrainedModel

from golongrl.broadcast.process import SenderProcess
from golongrl.local.plan import EngineKind
from golongrl.queue import WeightsRef
from golongrl.recipe import load
from golongrl.rollout.sglang.answers import Generation
from golongrl.rollout.sglang.client import EngineClient
from golongrl.rollout.sglang.sampling import SamplingParams
from golongrl.rollout.weights.adopt import Confirmed, check_server
from golongrl.rollout.weights.policy import Mode
from rollout.harness import adopted
from support.engine_process import engine_process
from support.sender import hold
from support.tiny_model import VOCABULARY

pytestmark = pytest.mark.timeout(900)

PROMPT = np.random.default_rng(3).integers(20, VOCABULARY, 200).astype(np.int32)
SIBLINGS = 3


async def ask(engine: EngineClient, rid: str, key: str, prompt: NDArray[np.int32] = PROMPT) -> Generation:
    greedy = SamplingParams(0.0, 1.0, 8)
    return await engine.generate(prompt, greedy, rid=rid, vocab_size=VOCABULARY, extra_key=key)


async def group(engine: EngineClient, kind: EngineKind, held: Confirmed, name: str) -> list[Generation]:
    """A first response, then its siblings: at once where the engine shares prompts within a batch only."""
    first = await ask(engine, f"{name}.0", held.cache_key)
    if kind == "sglang":
        return [first, *[await ask(engine, f"{name}.{index}", held.cache_key) for index in range(1, SIBLINGS)]]
    await engine.pause("in_place")
    tasks = [asyncio.create_task(ask(engine, f"{name}.{index}", held.cache_key)) for index in range(1, SIBLINGS + 1)]
    while (await engine.metrics())["sglang:num_queue_reqs"] < SIBLINGS:
        await asyncio.sleep(0.01)
    await engine.resume()
    computed, *shared = sorted([await task for task in tasks], key=lambda answer: answer.cached_tokens or 0)
    assert computed.cached_tokens == 0
    return [first, *shared]


def fresh(model: PreTrainedModel, answer: Generation) -> float:
    """How far an answer's log-probs are from those of a model that never held other weights."""
    ids = torch.from_numpy(np.concatenate([PROMPT, answer.ids]).astype(np.int64))
    with torch.no_grad():
        logits = model(input_ids=ids[None]).logits[0, len(PROMPT) - 1 : -1]
    chosen = torch.log_softmax(logits.float(), dim=-1).gather(1, ids[len(PROMPT) :, None])[:, 0]
    return float((chosen - torch.from_numpy(answer.logprobs)).abs().max())


@pytest.mark.parametrize("way", ["disk", pytest.param("broadcast", marks=pytest.mark.full)])
@pytest.mark.parametrize("kind", ["embedded", pytest.param("sglang", marks=pytest.mark.full)])
async def test_a_prompt_repeated_over_an_update_is_computed_again(
    kind: EngineKind, way: str, sender: SenderProcess, tiny_model: Path, tiny_model_next: Path, tmp_path: Path
) -> None:
    recipe = load("quickstart", [f"model.path={tiny_model}", "model.context_length=1024"])
    with engine_process(kind, tiny_model, recipe, tmp_path / "engine.log") as url:
        async with EngineClient(url) as engine:
            await check_server(engine)
            held: Confirmed | None = None
            folders = (tiny_model, tiny_model_next)
            models = [AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32) for folder in folders]
            # In-place last but one, so that a version comes after the one that kept the cache.
            modes = (Mode.DRAIN, Mode.RETRACT, Mode.IN_PLACE, Mode.IN_PLACE, Mode.ABORT)
            for version, mode in enumerate(modes, start=1):
                folder, model = folders[version % 2], models[version % 2]
                ref = WeightsRef(version, str(folder), "first", "") if way == "disk" else hold(sender, folder, version)
                before, held = held, await adopted(engine, ref, mode, held)
                first, *siblings = await group(engine, kind, held, f"v{version}")
                assert first.cached_tokens == 0, mode
                # SGLang always computes the last token, whose logits it needs.
                assert all((sibling.cached_tokens or 0) >= len(PROMPT) - 1 for sibling in siblings), mode
                assert [span.version for span in first.spans] == [str(version)]
                assert fresh(model, first) < 1e-4, mode
                assert all(fresh(model, sibling) < 1e-4 for sibling in siblings), mode
                if kind == "sglang" and mode is Mode.IN_PLACE and before is not None:
                    stale = await ask(engine, f"stale{version}", before.cache_key)
                    assert (stale.cached_tokens or 0) >= len(PROMPT) - 1, "the cache was kept: only the key parts them"
                    assert fresh(model, stale) > 1e-4


@pytest.mark.parametrize("kind", ["embedded", pytest.param("sglang", marks=pytest.mark.full)])
@pytest.mark.full
async def test_the_same_version_of_another_lineage_shares_nothing(
    kind: EngineKind, tiny_model: Path, tmp_path: Path
) -> None:
    """Keys alone part requests, on weights that are equal."""
    recipe = load("quickstart", [f"model.path={tiny_model}", "model.context_length=1024"])
    with engine_process(kind, tiny_model, recipe, tmp_path / "engine.log") as url:
        async with EngineClient(url) as engine:
            for lineage in ("first", "second", "first1"):
                ref = WeightsRef(1, str(tiny_model), lineage, "")
                held = Confirmed(ref, await engine.model_info(), VOCABULARY)
                first, *siblings = await group(engine, kind, held, lineage)
                assert first.cached_tokens == 0
                assert all((sibling.cached_tokens or 0) >= len(PROMPT) - 1 for sibling in siblings)
