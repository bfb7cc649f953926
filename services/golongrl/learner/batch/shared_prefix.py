"""How the responses of a group are laid out, and shared out over ranks, so that their prompt is computed once. Pure.

A *part* is a prompt with some of its responses. In the packed row of a micro-batch it is the prompt without its last
token, followed by one *segment* a response: the prompt's last token and the response without its last token. So the
labels of a segment are its response, and no hidden state belongs to two losses. A segment's tokens have the positions
they have after the prompt, and attend to the prompt and to their own segment alone: for a causal model that is exactly
what each response would see by itself.

Invariants:
- a prompt is computed once a part, and a group is one part wherever it fits (golongrl.learner.batch.parts);
- every trainable response is in exactly one shard; no rank is without work.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from golongrl.learner.batch.parts import Part, at_least, balanced, parts_of
from golongrl.learner.batch.samples import Float32, Int32, Int64, Samples, Shard, check_longest, mini_batches, pack


def shard_groups(
    samples: Samples,
    advantages: Float32,
    *,
    ranks: int,
    mini_batch_groups: int | None,
    longest: int,
    pairs_per_token: float,
) -> list[list[Shard]]:
    """Mini-batches in order, each as one shard per data-parallel rank, `[mini][rank]`: whole groups, balanced by work.

    The counterpart of `samples.shard` for shared prompts, with the same arguments and errors.

    Args:
        pairs_per_token: weighs attention against the rest, see golongrl.learner.flops.

    Raises:
        BatchError: a sequence is longer than `longest`.
    """
    check_longest(samples, longest)
    prompts = [len(ids) for ids in samples.prompts]
    minis = []
    for members in mini_batches(samples, mini_batch_groups):
        parts = parts_of(prompts, samples.group, samples.lengths, members, longest)
        enough = at_least([[part] for part in parts], ranks, pairs_per_token)
        shares = balanced([part for batch in enough for part in batch], ranks, pairs_per_token)
        filler = members[samples.sequence_lengths[members].argmin()]
        minis.append([_shard(samples, advantages, share, int(filler), len(members)) for share in shares])
    return minis


def _shard(samples: Samples, advantages: Float32, share: list[Part], filler: int, sequences: int) -> Shard:
    """A rank without work gets a response that weighs nothing: the others wait for it in collectives."""
    members = np.array(sorted(i for part in share for i in part.members) or [filler], dtype=np.int64)
    weights = np.full(len(members), 1.0 if share else 0.0, dtype=np.float32)
    return pack(samples, advantages, members, weights, sequences)


@dataclass(frozen=True)
class PackedRow:
    """The packed row of a micro-batch: T tokens of which S are in segments."""

    ids: Int32  # [T]
    positions: Int64  # [T]
    segment_rows: Int64  # [S] where the segments' tokens are, in the order of the responses
    parts: tuple["PackedPart", ...]


@dataclass(frozen=True)
class PackedPart:
    """Where a part stands in the packed row: [start, prefix_end) is the prompt, then its segments."""

    start: int
    prefix_end: int
    segments: tuple[tuple[int, int], ...]  # [start, end) of each

    @property
    def end(self) -> int:
        """Behind the last segment."""
        return self.segments[-1][1]


def packed_row(prompts: Sequence[Int32], responses: Sequence[Int32], prompt: Int64) -> PackedRow:
    """The packed row of responses in group order.

    Args:
        prompts: whole prompts.
        responses: [k], those of one prompt next to each other.
        prompt: [k] index of each response's prompt.
    """
    ids: list[np.ndarray] = []
    positions: list[np.ndarray] = []
    parts: list[PackedPart] = []
    segments: list[tuple[int, int]] = []
    place = start = prefix_end = 0
    last = -1
    for response, index in zip(responses, prompt.tolist(), strict=True):
        whole = prompts[index]
        prefix = len(whole) - 1
        if index != last:
            if segments:
                parts.append(PackedPart(start, prefix_end, tuple(segments)))
            segments, last, start = [], index, place
            ids.append(whole[:-1])
            positions.append(np.arange(prefix))
            place = prefix_end = start + prefix
        ids += [whole[-1:], response[:-1]]
        positions.append(np.arange(prefix, prefix + len(response)))
        segments.append((place, place + len(response)))
        place += len(response)
    parts.append(PackedPart(start, prefix_end, tuple(segments)))
    rows = [np.arange(a, b) for part in parts for a, b in part.segments]
    return PackedRow(
        np.concatenate(ids).astype(np.int32),
        np.concatenate(positions).astype(np.int64),
        np.concatenate(rows).astype(np.int64),
        tuple(parts),
    )
