"""Recorded routes stand where their tokens stand: in packed, padded and shared rows, whole and cut for Ulysses."""

from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from golongrl.learner.batch.routes import RowRoutes, SampleRoutes, ShardRoutes, plain_row, shared_row
from golongrl.learner.batch.samples import Samples, Shard, pack
from golongrl.learner.batch.shared_prefix import packed_row
from golongrl.learner.ranks.routing_replay import Replay
from golongrl.learner.ranks.tensors import assemble
from golongrl.routes.groups import GroupRoutes
from golongrl.routes.model import MoeRouting
from golongrl.routes.reference import RoutesReference

LAYERS, TOP_K = 2, 3
ROUTING = MoeRouting(3, (0, 2), TOP_K, 256)


def _routes_of(ids: np.ndarray, dtype: type = np.uint8) -> np.ndarray:
    """Each token's route says which token it is."""
    return np.broadcast_to(ids.astype(dtype)[:, None, None], (len(ids), LAYERS, TOP_K))


@dataclass(frozen=True)
class Made:
    """A shard, and its routes by reference."""

    shard: Shard
    files: dict[RoutesReference, GroupRoutes]

    @property
    def routes(self) -> ShardRoutes:
        assert self.shard.routes is not None
        return self.shard.routes

    def read(self, reference: RoutesReference) -> GroupRoutes:
        return self.files[reference]

    @property
    def known(self) -> set[int]:
        """Ids whose route was recorded; every id is one token's."""
        return {
            int(token)
            for reference in self.routes.groups
            if reference is not None
            for rows in (self.files[reference].prompt, *self.files[reference].responses)
            for token in rows[:, 0, 0]
        }


@st.composite
def shards(draw: st.DrawFn) -> Made:
    """Groups with distinct ids from 1 on; some have no record, as an older worker's."""
    groups = draw(st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=3), min_size=1, max_size=4))
    prompts, responses, owner, references, place = [], [], [], [], []
    files: dict[RoutesReference, GroupRoutes] = {}
    start = 1
    for index, lengths in enumerate(groups):
        size = draw(st.integers(1, 5))
        prompts.append(np.arange(start, start + size, dtype=np.int32))
        start += size
        own = []
        for length in lengths:
            own.append(np.arange(start, start + length, dtype=np.int32))
            start += length
        responses += own
        owner += [index] * len(own)
        place += range(len(own))
        references.append(RoutesReference(f"0-{index}.00000000.routes", "", 1) if draw(st.booleans()) else None)
        if references[-1] is not None:
            rows = tuple(_routes_of(ids[:-1]) for ids in own)
            files[references[-1]] = GroupRoutes(_routes_of(prompts[-1]), rows, ROUTING.experts)
    samples = Samples(
        prompts=prompts,
        uids=[f"0-{i}" for i in range(len(prompts))],
        group=np.array(owner, np.int64),
        tasks=["EM"] * len(owner),
        responses=responses,
        logprobs=[np.full(len(ids), -1.0, np.float32) for ids in responses],
        rewards=np.ones(len(owner), np.float32),
        finished=np.ones(len(owner), np.bool_),
        routes=SampleRoutes(ROUTING, references, place),
    )
    members = np.array(sorted(draw(st.sets(st.sampled_from(range(len(owner))), min_size=1))), np.int64)
    weights = np.ones(len(members), np.float32)
    return Made(pack(samples, np.zeros(len(owner), np.float32), members, weights, len(members)), files)


def _rows(shard: Shard, data: st.DataObject) -> list[int]:
    """Some of a shard's responses, in order: a micro-batch."""
    return sorted(data.draw(st.sets(st.sampled_from(range(len(shard))), min_size=1)))


def _pieces(shard: Shard, rows: list[int]) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    responses = [shard.responses[shard.offsets[i] : shard.offsets[i + 1]] for i in rows]
    return shard.prompts, responses, shard.prompt[rows]


def _check(row: RowRoutes, ids: np.ndarray, known: set[int]) -> None:
    assert len(row.recorded) == len(ids)
    for token, recorded, experts in zip(ids.tolist(), row.recorded, row.experts, strict=True):
        assert recorded == (token in known)
        assert (experts == (token if recorded else 0)).all()


def _halves(make: object, size: int) -> list[RowRoutes]:
    middle = size // 2
    return [make(slice(0, middle)), make(slice(middle, size))]  # type: ignore[operator]


def _joined(parts: list[RowRoutes]) -> RowRoutes:
    return RowRoutes(
        np.concatenate([part.experts for part in parts]),
        np.concatenate([part.recorded for part in parts]),
        sum(part.tokens for part in parts),
    )


@given(shards(), st.data())
def test_shared_rows(made: Made, data: st.DataObject) -> None:
    rows = _rows(made.shard, data)
    ids = packed_row(*_pieces(made.shard, rows)).ids
    whole = shared_row(made.routes, rows, slice(0, len(ids)), made.read)
    _check(whole, ids, made.known)
    assert whole.tokens == len(ids), "a packed row computes no token that nothing depends on"
    padded = len(ids) + len(ids) % 2
    cut = _joined(_halves(lambda here: shared_row(made.routes, rows, here, made.read), padded))
    _check(cut, np.pad(ids, (0, padded - len(ids))), made.known)
    assert cut.tokens == whole.tokens


@given(shards(), st.data())
def test_rows_of_whole_sequences(made: Made, data: st.DataObject) -> None:
    """The ids are the ones that verl gets."""
    rows, known = _rows(made.shard, data), made.known
    every = assemble(made.shard, temperature=1.0, pad_token_id=0)["input_ids"].unbind()
    sequences = [every[i].numpy() for i in rows]
    ids = np.concatenate(sequences)
    whole = plain_row(made.routes, rows, slice(0, len(ids)), made.read)
    _check(whole, ids, known)
    assert whole.tokens == len(ids) - len(rows), "nothing depends on a last token"
    cut = _joined(_halves(lambda here: plain_row(made.routes, rows, here, made.read), len(ids) + len(ids) % 2))
    _check(cut, np.pad(ids, (0, len(ids) % 2)), known)
    assert cut.tokens == whole.tokens
    width = max(map(len, sequences))
    padded = np.concatenate([np.pad(sequence, (0, width - len(sequence))) for sequence in sequences])
    wide = plain_row(made.routes, rows, slice(0, len(padded)), made.read, width=width)
    _check(wide, padded, known)
    assert wide.tokens == whole.tokens


def test_numbers_of_more_than_256_experts_keep_their_type() -> None:
    reference = RoutesReference("0-0.00000000.routes", "", 1)
    routing = MoeRouting(LAYERS, (0, 1), TOP_K, 512)
    routes = ShardRoutes(routing, [reference, None], [0, 1], [0, 0], [(2, 3), (1, 2)])
    assert routes.needed([0, 1]) == {reference}
    ids = np.array([300, 301]), np.array([400, 401])
    group = GroupRoutes(_routes_of(ids[0], np.uint16), (_routes_of(ids[1], np.uint16),), 512)
    row = shared_row(routes, [0, 1], slice(0, 6), lambda _: group)
    assert row.experts.dtype == np.uint16
    assert row.experts[:, 0, 0].tolist() == [300, 301, 400, 401, 0, 0]
    assert row.recorded.tolist() == [True, True, True, True, False, False]
    on_device = Replay.of(row, "cpu")
    assert on_device.experts.long()[:, 1, 2].tolist() == [300, 301, 400, 401, 0, 0]
