"""The memory estimate and what is refused before anything is loaded."""

from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from golongrl.errors import InputError
from golongrl.learner.known_models import SHAPES, model_config
from golongrl.learner.memory import GIB, MemoryPlanError, check_device, check_kernel, check_layout, estimate, shape
from golongrl.learner.startup import LearnerConfig, train
from golongrl.recipe import Recipe, load, packaged

QWEN3_4B = SHAPES["Qwen/Qwen3-4B-Thinking-2507"]
QWEN3_30B = SHAPES["Qwen/Qwen3-30B-A3B-Thinking-2507"]
SMOLLM2 = SHAPES["builtin:smollm2-135m"]

PLAIN = "learner.shared_prefix=false"


def _paper(*overrides: str) -> Recipe:
    return load("qwen3-4b-tmn-reweight", overrides)


@pytest.mark.parametrize(("config", "billions"), [(QWEN3_4B, 4.02), (QWEN3_30B, 30.53), (SMOLLM2, 0.1345)])
def test_parameters_are_the_published_counts(config: Mapping[str, Any], billions: float) -> None:
    assert shape(config).parameters / 1e9 == pytest.approx(billions, rel=0.003)


def test_parameters_equal_a_real_model(tiny_model: Any) -> None:
    import json

    from transformers import AutoModelForCausalLM

    real = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(tiny_model).parameters())
    assert shape(json.loads((tiny_model / "config.json").read_text())).parameters == pytest.approx(real, rel=0.01)


@pytest.mark.parametrize(
    ("name", "config"),
    [("qwen3-4b-grpo", QWEN3_4B), ("qwen3-4b-tmn-reweight", QWEN3_4B), ("qwen3-30b-a3b-grpo", QWEN3_30B)],
)
def test_the_papers_recipes_fit_80_gb(name: str, config: Mapping[str, Any]) -> None:
    recipe = load(name)
    check_layout(recipe, config)
    check_device(recipe, config, device="cuda", device_bytes=80 * GIB)


@pytest.mark.parametrize(
    ("override", "term"),
    [
        ("learner.fused_linear_cross_entropy=false", "logits"),
        ("learner.gradient_checkpointing=false", "activations kept for the backward pass"),
    ],
)
def test_what_makes_long_context_fit_is_needed(override: str, term: str) -> None:
    base, without = estimate(_paper(), QWEN3_4B), estimate(_paper(override), QWEN3_4B)
    assert without.terms[term] > 5 * base.terms[term]
    assert without.total > base.total


def test_a_checkpoint_costs_host_memory_of_what_is_saved() -> None:
    """Parameters and both moments in float32; counted whether they are offloaded or not."""
    for offload in ("true", "false"):
        need = estimate(_paper(f"learner.offload_optimizer={offload}", "learner.ranks=8"), QWEN3_4B)
        assert need.snapshot == pytest.approx(12 * need.parameters / 8)
        assert any(line.endswith("of CPU memory while a checkpoint is being written") for line in need.lines())


def test_a_host_loads_copies_and_sends() -> None:
    """4B is tied, so every rank of a host loads all of it; 30B is loaded once, and its copies are larger than that."""
    size = estimate(_paper(), QWEN3_4B).parameters
    assert estimate(_paper(), QWEN3_4B).host_total(8) == 8 * (5 * GIB + 4 * size)
    alone = "learner.routing_replay=false"  # routes are tested below
    moe = load("qwen3-30b-a3b-grpo", ["learner.ranks=8", alone])
    need = estimate(moe, QWEN3_30B)
    assert need.host_total(8) == pytest.approx(8 * 5 * GIB + (12 + 2) * need.parameters, rel=1e-6)
    assert need.files == 0
    # Of 16 ranks: half a checkpoint on each host, and all of the weights on the first's.
    sent = estimate(load("qwen3-30b-a3b-grpo", ["learner.ranks=16", "learner.weights=broadcast", alone]), QWEN3_30B)
    assert sent.host_total(8) == pytest.approx(8 * 5 * GIB + (6 + 2) * need.parameters, rel=1e-6)
    assert sent.files == 2 * 2 * need.parameters
    assert any(line.endswith("of disk under TMPDIR, for weights to broadcast") for line in sent.lines())


def test_recorded_routes_are_counted_on_the_device_and_its_host() -> None:
    """48 layers, 8 of 128 experts: 384 bytes a token; a rank has an eighth of each, and reads whole groups."""
    name, config = "qwen3-30b-a3b-grpo", QWEN3_30B
    without, replayed = (
        estimate(load(name, [f"learner.routing_replay={value}"]), config) for value in ("false", "true")
    )
    assert replayed.terms["recorded routes"] == 53_248 * (384 + 8 * 128 + 8 * 8)
    assert replayed.routes == 3 * 53_248 * 8 * 384
    assert "recorded routes" not in without.terms
    assert without.routes == 0
    # Where loading is not what needs most.
    hosts = [replace(each, loading=0).host_total(8) for each in (without, replayed)]
    assert hosts[1] - hosts[0] == 8 * replayed.routes
    assert any("for recorded routes" in line for line in replayed.lines())
    plain = estimate(load(name, ["learner.routing_replay=true", "learner.shared_prefix=false"]), config)
    assert plain.routes == 16 * replayed.routes


def test_more_ranks_need_less_each() -> None:
    totals = [estimate(_paper(), QWEN3_4B, gpus=gpus).total for gpus in (8, 16, 64, 128)]
    assert totals == sorted(totals, reverse=True)


def test_too_large_is_refused_with_numbers() -> None:
    with pytest.raises(
        MemoryPlanError, match=r"a rank needs about [\d.]+ GiB, the device has 8.0; the largest part is"
    ):
        check_device(_paper(), QWEN3_4B, device="cuda", device_bytes=8 * GIB)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["learner.max_tokens_per_rank=1024"], "below the longest sequence, 180224"),
        (
            ["learner.ulysses=1", "learner.max_tokens_per_rank=180224", "learner.ranks=30", "learner.ulysses=30"],
            "30 does not",
        ),
        ([PLAIN, "learner.remove_padding=false"], "needs learner.remove_padding: true"),
        ([PLAIN, "model.attn_implementation=sdpa"], "the degree would do nothing"),
    ],
)
def test_a_layout_that_cannot_work_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_layout(_paper(*overrides), QWEN3_4B)


def test_shared_prompts_need_no_package_for_attention_and_split_without_it() -> None:
    recipe = _paper("model.attn_implementation=sdpa", "learner.remove_padding=false")
    check_layout(recipe, QWEN3_4B | {"model_type": "qwen3"})
    check_kernel(recipe, QWEN3_4B | {"model_type": "qwen3"}, lambda _: False)
    with pytest.raises(InputError, match="the degree would do nothing"):
        check_layout(recipe.model_copy(update={"learner": recipe.learner.model_copy(update={"remove_padding": True})}),
                     QWEN3_4B | {"model_type": "unknown"})  # fmt: skip


def test_flash_attention_on_a_cpu_is_refused() -> None:
    with pytest.raises(InputError, match="needs a GPU; on CPU use sdpa"):
        check_device(_paper(), QWEN3_4B, device="cpu", device_bytes=None)


@pytest.mark.parametrize(
    ("attention", "installed", "missing"),
    [
        ("flash_attention_2", (), "flash_attn"),
        ("flash_attention_2", ("flash_attn_interface",), "flash_attn"),
        ("flash_attention_2", ("flash_attn",), None),
        ("flash_attention_3", ("flash_attn",), "flash_attn_interface"),
        ("flash_attention_3", ("kernels",), None),
        ("sdpa", (), None),
    ],
)
def test_a_missing_attention_kernel_is_refused_before_ranks_start(
    attention: str, installed: tuple[str, ...], missing: str | None
) -> None:
    recipe = _paper(PLAIN, f"model.attn_implementation={attention}")
    if missing is None:
        check_kernel(recipe, QWEN3_4B, installed.__contains__)
    else:
        with pytest.raises(InputError, match=f"{attention}: there is no {missing} here; install .* FLASH_ATTN_WHEEL"):
            check_kernel(recipe, QWEN3_4B, installed.__contains__)


async def test_the_learner_looks_for_the_kernel_before_it_speaks_to_anybody(tmp_path: Path) -> None:
    assert find_spec("flash_attn") is None
    assert find_spec("kernels") is None
    nobody = LearnerConfig("r", "redis://127.0.0.1:1/0", data=tmp_path, weights=tmp_path, out=tmp_path)
    recipe = load("quickstart", [PLAIN, "model.attn_implementation=flash_attention_2", "model.dtype=bfloat16"])
    with pytest.raises(InputError, match="there is no flash_attn here"):
        await train(recipe, nobody)


@pytest.mark.parametrize("name", packaged())
def test_every_packaged_recipe_can_be_estimated_without_a_hub(name: str) -> None:
    recipe = load(name)
    check_layout(recipe, model_config(recipe.model.path))
    assert estimate(recipe, model_config(recipe.model.path)).total > 0


def test_a_folder_is_read_and_anything_else_is_named(tiny_model: Path, tmp_path: Path) -> None:
    assert shape(model_config(str(tiny_model))).layers == 2
    with pytest.raises(InputError, match=r"model nobody/nothing: its config\.json is not on this machine"):
        model_config("nobody/nothing")
    with pytest.raises(InputError, match=f"model file {tmp_path}/config.json"):
        model_config(str(tmp_path))
