"""The step part of `benchmarks/learner.py`: `LearnerRank.update` and verl's bare engine in turns, on one engine."""

import argparse
import ctypes
import gc
import json
import logging
import os
import shutil
import socket
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from rich.table import Table
from transformers.utils.logging import disable_progress_bar
from verl.utils import tensordict_utils as tu
from verl.utils.flops_counter import get_device_flops
from verl.workers.utils.losses import ppo_loss

from _learner_common import Span, Spent, console, made_up, median, spent
from golongrl.data import resolve
from golongrl.learner import flops, memory
from golongrl.learner.batch.prepare import prepare
from golongrl.learner.batch.samples import Shard
from golongrl.learner.ranks.rank import LearnerRank
from golongrl.learner.ranks.tensors import assemble, correct, response_tokens, with_columns
from golongrl.learner.ranks.verl_config import loss_config
from golongrl.recipe import Recipe, load
from golongrl.recipe.prefix_support import plain_reason

GOAL = 0.95
# No weight moves: Adam's first steps have about the size of the rate.
NO_LR = 1e-30
# What two computations of one gradient norm may differ by: float32 in one order; bf16 with atomics on a GPU.
SAME_ON_CPU, SAME_ON_GPU = 1e-5, 2e-2

QWEN3_4B = {
    "vocab_size": 151_936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 262_144,
    "tie_word_embeddings": True,
}


ON_CPU = {"groups": 18, "responses": 8, "prompt": Span(74, 106), "response": Span(4, 48), "rounds": 8}
"""The quickstart's batch: its prompts' lengths, and its answers' up to the limit."""
ON_GPU = {"groups": 2, "responses": 2, "prompt": Span(24_576, 24_576), "response": Span(8192, 8192), "rounds": 3}


def measure(options: argparse.Namespace) -> None:
    """Print the tables."""
    on_gpu = torch.cuda.is_available()
    for name, value in (ON_GPU if on_gpu else ON_CPU).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    named = options.model or ("qwen3-4b" if on_gpu else "builtin:quickstart")
    with tempfile.TemporaryDirectory(prefix="bench-learner-") as scratch, _fresh_processes() as processes:
        if named == "qwen3-4b":
            model = processes.submit(random_model, Path(scratch) / "model", QWEN3_4B).result()
        else:
            model = resolve(named)
        for proximal in [options.only] if options.only else ["recompute", "behaviour"]:
            print(processes.submit(_compare, recipe_of(options, model, proximal), model, options).result())


def _fresh_processes() -> ProcessPoolExecutor:
    """One after another: two models of this size would not fit a device, and what the first left would be counted."""
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1)


@contextmanager
def _one_rank() -> Iterator[None]:
    """What Ray would tell a rank; without what verl and torch say on the way."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    disable_progress_bar()
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    dist.destroy_process_group()


def random_model(folder: Path, shape: dict[str, Any]) -> Path:
    """A model folder of a Qwen3 shape: random bf16 weights, the quickstart's tokenizer."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    disable_progress_bar()
    folder.mkdir(parents=True)
    for path in resolve("builtin:quickstart").glob("tokenizer*"):
        shutil.copy(path, folder)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = Qwen3ForCausalLM(Qwen3Config(**shape, pad_token_id=0, eos_token_id=1)).to(torch.bfloat16)
    model.save_pretrained(folder)
    return folder


def recipe_of(options: argparse.Namespace, model: Path, proximal: str) -> Recipe:
    """The quickstart's on CPU; on a GPU the paper's for 4B parameters, on one rank."""
    prompt, response = options.prompt, options.response
    longest = prompt.high + response.high
    group = prompt.high + options.responses * response.high
    changes = [
        f"model.path={model}", f"model.context_length={longest}", f"data.max_prompt_tokens={prompt.high}",
        f"rollout.n={options.responses}", f"rollout.max_response_tokens={response.high}",
        f"queue.groups_per_step={options.groups}", f"algorithm.proximal={proximal}",
        f"learner.lr={NO_LR}", "learner.lr_warmup_steps=0",
        f"learner.max_tokens_per_rank={options.micro_batch or max(group, 4096)}",
    ]  # fmt: skip
    if not torch.cuda.is_available():
        return load("quickstart", changes)
    flash = find_spec("flash_attn") is not None
    changes += [
        "learner.ranks=1", "learner.ulysses=1",
        f"model.attn_implementation={'flash_attention_2' if flash else 'sdpa'}",
        f"learner.remove_padding={str(flash).lower()}",
    ]  # fmt: skip
    return load("qwen3-4b-tmn-reweight", changes)


class Ours:
    """The rank as the driver calls it."""

    def __init__(self, rank: LearnerRank, part: Shard) -> None:
        self._rank = rank
        self._part = part
        self.phases: list[dict[str, float]] = []
        """Seconds of every step's phases."""

    def step(self) -> float:
        """The gradient norm."""
        if self._rank.shares_prompts:
            self._rank.engine.share_prompts()
        metrics = self._rank.update([self._part])
        self.phases.append({name: value for name, value in metrics.items() if name.startswith("timing_s/")})
        return float(metrics["actor/grad_norm"])


class Bare:
    """verl's engine and nothing of ours: what its trainer asks of it in a step, on a batch that is complete."""

    def __init__(self, rank: LearnerRank, recipe: Recipe, part: Shard) -> None:
        self._engine = rank.engine
        self._attention = recipe.model.attn_implementation
        self._loss = partial(ppo_loss, loss_config(recipe))
        self._recompute = recipe.algorithm.proximal == "recompute"
        self._keys = {
            "use_remove_padding": recipe.learner.remove_padding,
            "use_fused_kernels": recipe.learner.fused_linear_cross_entropy,
            "use_dynamic_bsz": True,
            "max_token_len_per_gpu": recipe.learner.max_tokens_per_rank,
        }
        pad = rank.model_config.hf_config.pad_token_id
        self._batch = assemble(part, temperature=recipe.rollout.temperature, pad_token_id=pad or 0)

    def complete(self, part: Shard, recipe: Recipe) -> None:
        """Add what training needs: proximal log-probs, importance weights, masks."""
        columns = {"old_log_probs": torch.from_numpy(part.logprobs.copy())}
        if self._recompute:
            old = self.log_probs(part)
            correction = correct(old, part, recipe.algorithm)
            mask = correction.mask.long()
            assert correction.weights is not None
            columns = {"old_log_probs": old, "rollout_is_weights": correction.weights, "response_mask": mask}
            columns["loss_mask"] = mask
        with_columns(self._batch, part, **columns)

    def log_probs(self, part: Shard) -> torch.Tensor:
        """Of the response tokens, flat."""
        self._engine.module.set_attn_implementation(self._attention)
        return response_tokens(self._infer()["model_output"]["log_probs"], part).float().cpu()

    def step(self) -> float:
        """The gradient norm."""
        self._engine.module.set_attn_implementation(self._attention)
        if self._recompute:
            self._infer()
        data = self._call(calculate_entropy=False)
        with self._engine.train_mode():
            output = self._engine.train_batch(data, loss_function=self._loss)
        self._engine.lr_scheduler_step()
        return float(output["metrics"]["grad_norm"])

    def _infer(self) -> dict[str, Any]:
        # verl's trainer asks for the entropy metric with the log-probs, as ours does.
        data = self._call(calculate_entropy=True)
        with self._engine.eval_mode():
            output: dict[str, Any] = self._engine.infer_batch(data)
        return output

    def _call(self, **keys: Any) -> Any:
        """A shallow copy: the engine writes its bookkeeping into what it is given."""
        data = self._batch.copy()
        tu.assign_non_tensor(data, **self._keys, **keys)
        return data


def _compare(recipe: Recipe, model: Path, options: argparse.Namespace) -> str:
    """The table of one recipe, as text."""
    config = json.loads((model / "config.json").read_text("utf-8"))
    batch = made_up(options.groups, options.responses, options.prompt, options.response, config["vocab_size"])
    plain = plain_reason(config, recipe, on_cpu=not torch.cuda.is_available())
    ratio = None if plain else flops.pairs_per_token(memory.shape(config))
    ((part,),) = prepare(batch, recipe, pairs_per_token=ratio).minis
    with _one_rank():
        rank = LearnerRank(recipe, str(model))
        info = rank.start()
        bare = Bare(rank, recipe, part)
        # As sampled by this model, a little off as an inference engine's are: nothing is vetoed.
        noise = np.random.default_rng(0).normal(0, 0.02, len(part.logprobs)).astype(np.float32)
        part = replace(part, logprobs=bare.log_probs(part).numpy() + noise)
        bare.complete(part, recipe)
        ours = Ours(rank, part)
        # Not counted: compilation, the optimizer's state, the allocator's first blocks.
        norms = [ours.step(), bare.step()]
        ours.phases.clear()
        times = _in_turns(
            {"ours": lambda: norms.append(ours.step()), "bare": lambda: norms.append(bare.step())}, options.rounds
        )
        peaks = {"ours": peak_bytes(ours.step), "bare": peak_bytes(bare.step)}
        _check_same(norms)
        with console.capture() as text:
            _print(recipe, config, part, times, ours.phases, info.parameters)
            _print_shared(config, part, peaks, plain)
    return text.get()


def _in_turns(sides: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[Spent]]:
    """Each side once a round, and the other one first in every other round."""
    times: dict[str, list[Spent]] = {name: [] for name in sides}
    for turn in range(rounds):
        for name in sorted(sides, reverse=bool(turn % 2)):
            times[name].append(spent(sides[name]))
    return times


def _check_same(norms: list[float]) -> None:
    """Both sides computed one gradient, every time; else the comparison means nothing."""
    allowed = SAME_ON_GPU if torch.cuda.is_available() else SAME_ON_CPU
    if not max(norms) - min(norms) <= allowed * max(norms):
        raise SystemExit(f"error: the gradient norms differ, so this is not the same work: {norms}")


def _print(
    recipe: Recipe,
    config: dict[str, Any],
    part: Shard,
    times: dict[str, list[Spent]],
    phases: list[dict[str, float]],
    parameters: int,
) -> None:
    lengths = _lengths(part)
    tokens = int(lengths.sum())
    table = Table("", "s", "CPU s", "tokens/s", "tokens/CPU s", "wall: ours/bare", "CPU: ours/bare")
    table.title = (
        f"Step, proximal: {recipe.algorithm.proximal}; {parameters / 1e6:,.1f}M parameters, {len(part)} sequences, "
        f"{tokens:,} tokens, micro-batches of {recipe.learner.max_tokens_per_rank:,}"
    )
    for name, sides in (("LearnerRank.update", "ours"), ("verl's bare engine", "bare")):
        middle = median(times[sides])
        speeds = [f"{tokens / seconds:,.0f}" for seconds in middle]
        ratios = ["", ""]
        if sides == "ours":
            ratios = [_ratio([b[k] / a[k] for a, b in zip(times["ours"], times["bare"], strict=True)]) for k in (0, 1)]
        table.add_row(name, f"{middle.wall:.3f}", f"{middle.cpu:.3f}", *speeds, *ratios)
    console.print(table)
    inside = {name: statistics.median(phase[name] for phase in phases) for name in phases[0]}
    console.print(
        "  of ours: " + ", ".join(f"{n.removeprefix('timing_s/')} {s * 1e3:,.1f} ms" for n, s in inside.items())
    )
    if torch.cuda.is_available():
        _print_gpu(recipe, config, lengths, {name: median(times[name]).wall for name in times})


def peak_bytes(step: Callable[[], object]) -> int:
    """Most memory that a step has beyond what was there before it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return int(torch.cuda.max_memory_allocated() - before)
    # What the allocator keeps of earlier steps goes back; Linux forgets the highest value so far.
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _kernel_kib("VmRSS")
    step()
    return max(_kernel_kib("VmHWM") - before, 1) * 1024


def _kernel_kib(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _print_shared(config: dict[str, Any], part: Shard, peaks: dict[str, int], plain: str | None) -> None:
    """Memory of a step, and the operations that a prompt computed once should save."""
    ours, bare = (peaks[side] / memory.GIB for side in ("ours", "bare"))
    console.print(
        f"  peak memory of a step: {ours:.2f} GiB, verl's bare engine {bare:.2f}: {bare / ours:.1f} times less"
    )
    if plain is not None:
        console.print(f"  prompts are computed again for every response: {plain}")
        return
    model, lengths = memory.shape(config), np.diff(part.offsets)
    expected = [
        sum(
            flops.group_flops(model, len(ids), lengths[part.prompt == i].tolist(), shared=shared)
            for i, ids in enumerate(part.prompts)
        )
        for shared in (False, True)
    ]
    plain_t, shared_t = (value / 1e12 for value in expected)
    console.print(f"  operations: {plain_t:.3f} T plain, {shared_t:.3f} T here: {plain_t / shared_t:.1f} times fewer")


def _ratio(ratios: list[float]) -> str:
    """Of tokens/s, pair by pair."""
    middle = statistics.median(ratios)
    return f"{middle:.3f} ({min(ratios):.3f} to {max(ratios):.3f}), {'met' if middle >= GOAL else 'NOT MET'}"


def _print_gpu(recipe: Recipe, config: dict[str, Any], lengths: np.ndarray, seconds: dict[str, float]) -> None:
    name, peak = torch.cuda.get_device_name(), get_device_flops("B") * 1e9
    passes = 4 if recipe.algorithm.proximal == "recompute" else 3
    flops = model_flops(config, lengths, passes)
    assumed = "unknown to verl's table: no MFU" if peak == float("inf") else f"{peak / 1e12:,.0f} TFLOP/s assumed"
    attention = recipe.model.attn_implementation
    console.print(f"  {name}, {assumed}, {attention}; {flops / 1e12:,.0f} TFLOP a step in {passes} passes")
    for side, wall in seconds.items():
        share = "" if peak == float("inf") else f", MFU {flops / wall / peak:.1%}"
        console.print(f"  {side}: {flops / wall / 1e12:,.0f} TFLOP/s{share}")
    peaks = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    expected = memory.estimate(recipe, config).total
    used, kept, expected_gib = (size / memory.GIB for size in (*peaks, expected))
    console.print(
        f"  peak memory: {used:.1f} GiB allocated, {kept:.1f} reserved; estimated beforehand {expected_gib:.1f}"
    )


def model_flops(config: dict[str, Any], lengths: np.ndarray, passes: int) -> float:
    """FLOPs of forward passes (an update counts as three): 2 a weight and token, the embedding's look-up left out and
    the head counted; causal attention 2 x heads x head_dim x length^2 a layer."""
    shape = memory.shape(config)
    weights = shape.layers * shape.layer + shape.embedding
    head = config.get("head_dim") or shape.hidden // shape.heads
    attention = 2 * shape.layers * shape.heads * head * float((lengths.astype(float) ** 2).sum())
    return passes * (2 * weights * float(lengths.sum()) + attention)


def _lengths(part: Shard) -> np.ndarray:
    """Prompt and response of every sequence."""
    prompts: np.ndarray = np.array([len(ids) for ids in part.prompts])[part.prompt]
    return prompts + np.diff(part.offsets)
