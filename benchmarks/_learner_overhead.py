"""The overhead part of `benchmarks/learner.py`: what a step of the paper's size does outside the engine."""

import argparse
import math
import resource
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.table import Table

from _learner_common import P, Spent, console, made_up, median, slowest, spent
from golongrl.data import resolve
from golongrl.learner.advantage import grpo, qwenlong_grpo, tmn_grpo
from golongrl.learner.batch.batch_metrics import batch_metrics
from golongrl.learner.batch.estimate import estimate
from golongrl.learner.batch.prepare import prepare
from golongrl.learner.batch.samples import Shard, collect
from golongrl.learner.batch.shared_prefix import shard_groups
from golongrl.learner.flops import pairs_per_token
from golongrl.learner.fsync import file_sha256
from golongrl.learner.known_models import SHAPES
from golongrl.learner.memory import shape
from golongrl.learner.ranks.tensors import assemble_shared, correct, response_tokens, with_columns
from golongrl.learner.weights.export import (
    SHARD_BYTES,
    ExportedFile,
    TakenShards,
    take_shards,
    write_taken,
)
from golongrl.learner.weights.store import Support, WeightStore
from golongrl.queue import Batch, decode, encode
from golongrl.recipe import Recipe, load

GOAL, STEP_S = 0.02, 60.0
VOCABULARY = 151_643
# Qwen3-4B in bf16.
WEIGHT_GB = 8.04
EMBEDDING_GB = 0.78
# A large matrix of such a model; what is written is that many of them.
TENSOR = (4096, 4096)

RATIO = pairs_per_token(shape(SHAPES["Qwen/Qwen3-4B-Thinking-2507"]))

BESIDE, WITHIN, AFTER = "beside the step before", "within the step", "beside the step after"


@dataclass(frozen=True)
class Row:
    """A line of the table. `when` empty: a part of the line above, or for comparison, and not summed."""

    name: str
    when: str
    spent: Spent


def measure(options: argparse.Namespace) -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    recipe = _recipe(options)
    batch = made_up(options.groups, options.responses, options.prompt, options.response, VOCABULARY)
    rows = _driver(batch, recipe, options.rounds)
    (parts,) = prepare(batch, recipe, pairs_per_token=RATIO).minis
    if not options.no_ray:
        rows.append(_ship(parts, options.rounds))
    rows += _ranks(parts, recipe, options.rounds)
    rows += _publishing(options)
    _print(rows, options)


def _recipe(options: argparse.Namespace) -> Recipe:
    """The paper's, with an optimizer step over the whole batch and as many ranks as asked."""
    longest = options.prompt.high + options.response.high
    return load(
        "qwen3-4b-tmn-reweight",
        [
            f"learner.ranks={options.ranks}", "learner.ulysses=1", f"learner.max_tokens_per_rank={longest}",
            f"model.context_length={longest}", f"data.max_prompt_tokens={options.prompt.high}",
            f"rollout.n={options.responses}", f"rollout.max_response_tokens={options.response.high}",
            f"queue.groups_per_step={options.groups}",
        ],
    )  # fmt: skip


def _driver(batch: Batch, recipe: Recipe, rounds: int) -> list[Row]:
    """The learner's process: a batch from the queue's bytes to shards."""
    packed = [encode(group) for group in batch.groups]
    samples = collect(batch.groups)
    rewards, algorithm = samples.rewards, recipe.algorithm
    advantages = estimate(samples, rewards, algorithm).advantages.values
    longest, ranks = recipe.learner.max_tokens_per_rank, recipe.learner.ranks
    split = partial(shard_groups, pairs_per_token=RATIO, ranks=ranks, mini_batch_groups=None, longest=longest)
    scores, groups = torch.from_numpy(rewards), samples.group.tolist()

    def row(name: str, call: Callable[P, object], *arguments: P.args, **keys: P.kwargs) -> Row:
        return Row(name, "", median(spent(call, *arguments, **keys) for _ in range(rounds)))

    return [
        row(f"decode {len(packed)} groups ({sum(map(len, packed)) / 1e6:,.0f} MB)", lambda: [*map(decode, packed)]),
        replace(row("prepare", partial(prepare, pairs_per_token=RATIO), batch, recipe), when=BESIDE),
        row("  of it: columns and checks", collect, batch.groups),
        row(f"  of it: estimator {algorithm.estimator}", estimate, samples, rewards, algorithm),
        row(f"  of it: balance over {ranks} ranks, shards", split, samples, advantages.numpy()),
        row("  of it: batch metrics", batch_metrics, batch, samples, rewards, advantages, longest),
        row("  other estimators: tmn_grpo, no reweighting", tmn_grpo, scores, groups, samples.tasks),
        row("  other estimators: grpo", grpo, scores, groups),
        row("  other estimators: qwenlong_grpo", qwenlong_grpo, scores, samples.tasks),
    ]


def _ship(parts: list[Shard], rounds: int) -> Row:
    """Into Ray's object store; from there every node fetches its own, which a single machine cannot show."""
    import ray

    size = sum(array.nbytes for part in parts for array in (part.responses, part.logprobs, *part.prompts))
    ray.init(
        num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
        object_store_memory=int(size * 2.5) + (100 << 20),
    )  # fmt: skip
    try:
        # What it puts is freed at once. The first fills the store's memory for the first time and does not count.
        times = [spent(lambda: [ray.put([part]) for part in parts]) for _ in range(rounds + 1)][1:]
    finally:
        ray.shutdown()
    return Row(f"ship: every rank's shard into Ray's store ({size / 1e6:,.0f} MB)", WITHIN, median(times))


def _ranks(parts: list[Shard], recipe: Recipe, rounds: int) -> list[Row]:
    """A rank's share, of the rank that takes longest: they work at the same time."""
    _rank(parts[0], recipe)  # libraries are loaded by the first
    every = [map(median, zip(*(_rank(part, recipe) for _ in range(rounds)), strict=True)) for part in parts]
    names = ("assemble a rank's batch", "correct: importance weights, veto", "columns: cut log-probs, add weights")
    return [Row(name, WITHIN, slowest(times)) for name, times in zip(names, zip(*every, strict=True), strict=True)]


def _rank(part: Shard, recipe: Recipe) -> tuple[Spent, Spent, Spent]:
    """Assembly, correction, columns; the engine's answer is of a policy a little away from the one that sampled."""
    batch = assemble_shared(part, temperature=1.0)
    noise = np.random.default_rng(0).normal(0, 0.02, len(part.logprobs)).astype(np.float32)
    old = torch.from_numpy(part.logprobs + noise)
    mask = torch.ones(len(old), dtype=torch.int64)
    ends = torch.tensor(part.offsets + np.arange(len(part.offsets)))
    full = torch.nested.nested_tensor_from_jagged(torch.zeros(int(ends[-1])), ends)

    def columns() -> None:
        response_tokens(full, part)
        with_columns(batch, part, old_log_probs=old, response_mask=mask, loss_mask=mask, rollout_is_weights=old)

    return (
        spent(assemble_shared, part, temperature=1.0),
        spent(correct, old, part, recipe.algorithm),
        spent(columns),
    )


def _publishing(options: argparse.Namespace) -> list[Row]:
    """Files are really written; what a rank does is scaled to its share of the weights, as shards are cut."""
    count = max(1, round(options.weights_gb * 1e9 / (TENSOR[0] * TENSOR[1] * 2)))
    tensors = {f"model.layers.{i}.weight": torch.rand(TENSOR).to(torch.bfloat16) for i in range(count)}
    with tempfile.TemporaryDirectory(prefix="bench-weights-", dir=options.store) as folder:
        store = WeightStore(Path(folder))
        # The first gets memory and disk blocks that the machine has not used before; not counted.
        turns = [_publish(store, version, tensors) for version in range(1, options.rounds + 2)][1:]
    copy, write, digest, seal = (median(times) for times in zip(*turns, strict=True))
    gb = sum(tensor.nbytes for tensor in tensors.values()) / 1e9
    # A tensor is never cut: the rank that has the embedding has the most.
    busiest = max(EMBEDDING_GB, math.ceil(WEIGHT_GB * 1e9 / SHARD_BYTES / options.ranks) * SHARD_BYTES / 1e9)
    scaled = f"{busiest:.2f} GB, the busiest rank's ({gb:.2f} measured)"
    return [
        Row(f"publish: copy {scaled}", WITHIN, copy * (busiest / gb)),
        Row("publish: write and hash them", AFTER, write * (busiest / gb)),
        Row("  of it: sha256", "", digest * (busiest / gb)),
        Row("publish: seal (index, manifest, fsync, rename)", AFTER, seal),
    ]


def _publish(store: WeightStore, version: int, tensors: dict[str, torch.Tensor]) -> tuple[Spent, Spent, Spent, Spent]:
    """The copy; writing with all it includes; its sha256 once more, by itself; sealing."""
    staging = store.begin(version)
    taken: list[TakenShards] = []
    files: list[ExportedFile] = []
    copy = spent(lambda: taken.append(take_shards(iter(tensors.items()), dtype=torch.bfloat16)))
    write = spent(lambda: files.extend(write_taken(taken[0], staging)))
    digest = spent(lambda: [file_sha256(staging / file.name) for file in files])
    support = Support(resolve("builtin:quickstart"), "bfloat16")
    seal = spent(store.seal, staging, version, "bench", files, support)
    store.prune(version, 1)
    return copy, write, digest, seal


def _print(rows: list[Row], options: argparse.Namespace) -> None:
    response, ranks = options.response, options.ranks
    lengths = f"{response.low:,}" if response.low == response.high else f"{response.low:,} to {response.high:,}"
    table = Table("", "when", "wall s", "CPU s", f"wall, % of {STEP_S:g} s", "CPU, %")
    table.title = f"A step of {options.groups} x {options.responses} responses of {lengths} tokens, {ranks} ranks"

    def add(name: str, when: str, time: Spent) -> None:
        table.add_row(name, when, *(f"{seconds:.3f}" for seconds in time), *(f"{s / STEP_S:.2%}" for s in time))

    def total(*members: Row) -> Spent:
        return Spent(sum(row.spent.wall for row in members), sum(row.spent.cpu for row in members))

    for row in rows:
        add(row.name, row.when, row.spent)
    table.add_section()
    within = total(*(row for row in rows if row.when == WITHIN))
    add(f"holds the step up (goal {GOAL:.0%}: {'met' if within.wall <= GOAL * STEP_S else 'NOT MET'})", "", within)
    add("beside other steps", "", total(*(row for row in rows if row.when in (BESIDE, AFTER))))
    add("all", "", total(*(row for row in rows if row.when)))
    console.print(table)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    console.print(
        "  Not summed: decoding, part of taking a batch beside the step before. Not measured: gathering the weights\n"
        f"  from the ranks' devices, shards over a network. Peak memory of this process: {peak:.1f} GiB."
    )
