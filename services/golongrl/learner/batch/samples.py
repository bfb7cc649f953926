"""From groups to rank shards: pure numpy and torch, no verl, no I/O.

Invariants:
- rewards and advantages are of the whole batch; only afterwards is it split into mini-batches and rank shards;
- a response that was not scored, or has no tokens, is in no shard: it teaches nothing and weighs nothing in the loss;
- a prompt is stored once per shard, however many of its responses are there;
- all ranks of a mini-batch get the same number of responses; where the count does not divide, fillers (weight 0) make
  it up, so that no rank is without work while the others wait for it in a collective.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from golongrl.errors import GolongrlError
from golongrl.learner.batch.routes import SampleRoutes, ShardRoutes
from golongrl.routes.model import MoeRouting

if TYPE_CHECKING:  # a rank reads shards and needs no queue client
    from golongrl.queue import Group

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]


class BatchError(GolongrlError):
    """A batch cannot be trained on; the message names the group."""


@dataclass(frozen=True)
class Samples:
    """All N responses of a batch, columns in group order then response order."""

    prompts: list[Int32]  # one per group
    uids: list[str]  # one per group
    group: Int64  # [N] index into prompts
    tasks: list[str]  # [N] statistics key of TMN
    responses: list[Int32]  # [N]
    logprobs: list[Float32]  # [N] behaviour log-probabilities, one per token
    rewards: Float32  # [N] NaN: unscored
    finished: NDArray[np.bool_]  # [N] ended by itself rather than at the length limit
    routes: SampleRoutes | None = None  # where they are replayed

    def __len__(self) -> int:
        return len(self.responses)

    @property
    def lengths(self) -> Int64:
        """Response lengths in tokens, [N]."""
        return np.array([len(ids) for ids in self.responses], dtype=np.int64)

    @property
    def sequence_lengths(self) -> Int64:
        """Prompt plus response in tokens, [N]."""
        prompts = np.array([len(ids) for ids in self.prompts], dtype=np.int64)
        return prompts[self.group] + self.lengths


@dataclass(frozen=True)
class Shard:
    """One rank's part of one mini-batch, compact enough to ship: n responses, flat with offsets."""

    prompts: list[Int32]
    prompt: Int64  # [n] index into prompts
    responses: Int32  # flat
    offsets: Int64  # [n + 1] of responses and logprobs
    logprobs: Float32  # flat
    advantages: Float32  # [n]
    weights: Float32  # [n] 1, or 0 for a filler
    sequences: int  # real responses of the mini-batch over all ranks
    routes: ShardRoutes | None = None  # where they are replayed

    def __len__(self) -> int:
        return len(self.prompt)


def collect(groups: "Sequence[Group]", routing: MoeRouting | None = None) -> Samples:
    """Columns of a batch.

    Args:
        routing: of the model, where recorded routes are replayed.

    Raises:
        BatchError: a group has an empty prompt, no responses, or not one log-probability a token.
    """
    responses, logprobs, rewards, owner, tasks, finished = [], [], [], [], [], []
    for index, group in enumerate(groups):
        if not len(group.prompt_ids) or not group.responses:
            raise BatchError(f"group {group.uid} has no prompt tokens or no responses")
        for response in group.responses:
            if len(response.ids) != len(response.logprobs):
                raise BatchError(
                    f"group {group.uid} has {len(response.ids)} tokens but {len(response.logprobs)} log-probabilities"
                )
            responses.append(np.asarray(response.ids, dtype=np.int32))
            logprobs.append(np.asarray(response.logprobs, dtype=np.float32))
            rewards.append(np.nan if response.reward is None else response.reward)
            owner.append(index)
            tasks.append(group.task_key)
            finished.append(response.finish_reason != "length")
    return Samples(
        prompts=[np.asarray(group.prompt_ids, dtype=np.int32) for group in groups],
        uids=[group.uid for group in groups],
        group=np.array(owner, dtype=np.int64),
        tasks=tasks,
        responses=responses,
        logprobs=logprobs,
        rewards=np.array(rewards, dtype=np.float32),
        finished=np.array(finished, dtype=np.bool_),
        routes=None
        if routing is None
        else SampleRoutes(
            routing,
            [group.routes for group in groups],
            [place for group in groups for place in range(len(group.responses))],
        ),
    )


def penalise_overlong(rewards: Float32, lengths: Int64, limit: int, buffer: int, penalty: float) -> Float32:
    """DAPO's soft overlong punishment: from `limit - buffer` tokens on, linearly, up to `penalty` at `limit`.

    `buffer` 0 is off; unscored stays unscored.
    """
    if not buffer:
        return rewards
    excess = np.clip(lengths - (limit - buffer), 0, buffer).astype(np.float32)
    return (rewards - penalty * excess / np.float32(buffer)).astype(np.float32)


def shuffled(advantages: torch.Tensor, scored: NDArray[np.bool_], seed: int, step: int) -> torch.Tensor:
    """Advantages permuted over the scored responses: the control experiment in which rewards teach nothing.

    The permutation depends on `seed` and `step` alone, so a replayed step is shuffled the same way.
    """
    places = np.flatnonzero(scored)
    order = np.random.default_rng([seed, step]).permutation(len(places))
    result = advantages.clone()
    result[places] = advantages[places[order]]
    return result


def shard(
    samples: Samples, advantages: Float32, *, ranks: int, mini_batch_groups: int | None, longest: int
) -> list[list[Shard]]:
    """Mini-batches in order, each as one balanced shard per data-parallel rank: `[mini][rank]`.

    Args:
        advantages: [N], of the whole batch.
        ranks: data-parallel ranks (GPUs over Ulysses degree).
        mini_batch_groups: groups in a mini-batch; None is the whole batch.
        longest: most tokens a sequence may have on a rank.

    Raises:
        BatchError: a sequence is longer than `longest`.
    """
    check_longest(samples, longest)
    minis = []
    for members in mini_batches(samples, mini_batch_groups):
        parts, weights = _balance(members, samples.sequence_lengths, ranks)
        minis.append([pack(samples, advantages, p, w, len(members)) for p, w in zip(parts, weights, strict=True)])
    return minis


def check_longest(samples: Samples, longest: int) -> None:
    """
    Raises:
        BatchError: a sequence is longer than `longest`.
    """
    lengths = samples.sequence_lengths
    worst = int(lengths.argmax())
    if lengths[worst] > longest:
        raise BatchError(
            f"group {samples.uids[samples.group[worst]]} has a sequence of {lengths[worst]} tokens, more than the "
            f"{longest} that a micro-batch holds: raise learner.max_tokens_per_rank or learner.ulysses"
        )


def mini_batches(samples: Samples, groups: int | None) -> Iterator[Int64]:
    """The trainable responses of each mini-batch of `groups` groups, in order; None is the whole batch."""
    usable = (samples.lengths > 0) & ~np.isnan(samples.rewards)
    size = groups or len(samples.prompts)
    for first in range(0, len(samples.prompts), size):
        members = np.flatnonzero(usable & (samples.group >= first) & (samples.group < first + size))
        if len(members):
            yield members


def _balance(members: Int64, lengths: Int64, ranks: int) -> tuple[list[Int64], list[Float32]]:
    """Split responses into `ranks` parts of equal count and about equal work, fillers included; members stay in order.

    Longest first, each to the least loaded part with room (attention makes work grow faster than length, so the
    longest dominate): within a few percent of balance for the hundreds of responses of a batch, and deterministic.
    """
    missing = -len(members) % ranks
    shortest = members[lengths[members].argmin()]
    padded = np.concatenate([members, np.full(missing, shortest, dtype=np.int64)])
    real = np.concatenate([np.ones(len(members), np.float32), np.zeros(missing, np.float32)])
    room = len(padded) // ranks
    parts: list[list[int]] = [[] for _ in range(ranks)]
    load = [0] * ranks
    for position in np.argsort(-lengths[padded], kind="stable").tolist():
        rank = min((r for r in range(ranks) if len(parts[r]) < room), key=lambda r: (load[r], r))
        parts[rank].append(position)
        load[rank] += int(lengths[padded[position]])
    chosen = [np.array(sorted(part), dtype=np.int64) for part in parts]
    return [padded[part] for part in chosen], [real[part] for part in chosen]


def pack(samples: Samples, advantages: Float32, members: Int64, weights: Float32, sequences: int) -> Shard:
    """The shard of some responses, `members` in group order; `sequences` real ones are in the mini-batch."""
    groups, prompt = np.unique(samples.group[members], return_inverse=True)
    responses = [samples.responses[i] for i in members]
    offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in responses])]).astype(np.int64)
    return Shard(
        prompts=[samples.prompts[group] for group in groups],
        prompt=prompt.astype(np.int64),
        responses=np.concatenate(responses),
        offsets=offsets,
        logprobs=np.concatenate([samples.logprobs[i] for i in members]),
        advantages=advantages[members].astype(np.float32),
        weights=weights,
        sequences=sequences,
        routes=None
        if (recorded := samples.routes) is None
        else ShardRoutes(
            recorded.routing,
            groups=[recorded.groups[group] for group in groups],
            prompt=prompt.tolist(),
            place=[recorded.place[i] for i in members],
            lengths=[(len(samples.prompts[samples.group[i]]), len(samples.responses[i])) for i in members],
        ),
    )
