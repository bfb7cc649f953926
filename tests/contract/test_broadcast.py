"""Broadcast weights in a real engine: what it reads back is what was sent, in the middle of a generation too."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from contract.test_weights import expected
from golongrl.broadcast.process import SenderProcess
from golongrl.local.plan import EngineKind
from golongrl.queue import WeightsRef
from golongrl.recipe import load
from golongrl.rollout.sglang.client import EngineClient
from golongrl.rollout.sglang.errors import AdoptionError
from golongrl.rollout.sglang.sampling import SamplingParams
from golongrl.rollout.weights.adopt import Confirmed
from golongrl.rollout.weights.policy import Mode
from rollout.harness import adopted
from support.engine_process import engine_process
from support.sender import hold
from support.tiny_model import VOCABULARY

pytestmark = pytest.mark.timeout(900)

LONG = 600


@pytest.mark.parametrize(
    ("kind", "models"),
    [
        ("embedded", ("tiny_model", "tiny_model_next")),
        ("embedded", ("tiny_mixture", "tiny_mixture_next")),
        ("sglang", ("tiny_model", "tiny_model_next")),
        ("sglang", ("tiny_mixture", "tiny_mixture_next")),
    ],
)
@pytest.mark.full  # tests/engine/test_broadcast.py has a broadcast to an engine in `make test`
async def test_broadcast_weights_are_the_ones_sent(
    kind: EngineKind, models: tuple[str, str], sender: SenderProcess, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    initial, following = (request.getfixturevalue(name) for name in models)
    recipe = load("quickstart", [f"model.path={initial}", "model.context_length=1024"])
    with engine_process(kind, initial, recipe, tmp_path / "engine.log") as url:
        async with EngineClient(url) as engine:
            held: Confirmed | None = None
            for version, model, mode in (
                (1, following, Mode.DRAIN),
                (2, initial, Mode.RETRACT),
                (3, following, Mode.IN_PLACE),
                (4, initial, Mode.ABORT),
            ):
                held = await adopted(engine, hold(sender, model, version), mode, held)
                assert (await engine.model_info()).weight_version == str(version)
                assert await engine.checksums() == expected(model, kind)
            spans = await _in_the_middle(engine, hold(sender, following, 5), held)
            assert [span.version for span in spans] == ["4", "5"]
            assert await engine.checksums() == expected(following, kind)
            with pytest.raises(AdoptionError, match="409") as failure:
                await adopted(engine, WeightsRef(6, str(initial), "first", "", sender.source), Mode.DRAIN, held)
            assert failure.value.unchanged
            assert await engine.ready()


@pytest.mark.full
async def test_sglang_takes_an_ipv6_address(
    sender_ipv6: SenderProcess, tiny_model: Path, tiny_model_next: Path, tmp_path: Path
) -> None:
    recipe = load("quickstart", [f"model.path={tiny_model}", "model.context_length=1024"])
    with engine_process("sglang", tiny_model, recipe, tmp_path / "engine.log") as url:
        async with EngineClient(url) as engine:
            await adopted(engine, hold(sender_ipv6, tiny_model_next, 1))
            assert await engine.checksums() == expected(tiny_model_next, "sglang")


async def _in_the_middle(engine: EngineClient, ref: WeightsRef, held: Confirmed | None):  # type: ignore[no-untyped-def]
    """Take `ref` while a response is being sampled; its version spans."""
    begun = asyncio.Event()
    prompt = np.arange(3, 40, dtype=np.int32)
    # Greedy: where an answer ends is not left to chance.
    generating = engine.generate(
        prompt,
        SamplingParams(0.0, 1.0, LONG),
        rid="middle",
        vocab_size=VOCABULARY,
        stream=True,
        on_progress=lambda _: begun.set(),
    )
    answering = asyncio.create_task(generating)
    await begun.wait()
    await adopted(engine, ref, Mode.IN_PLACE, held)
    return (await answering).spans
