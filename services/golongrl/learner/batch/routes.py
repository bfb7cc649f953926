"""Recorded routes laid out along the ids of a micro-batch: which experts the engine chose where. Pure numpy.

A route is recorded where a token was an input: the prompt's tokens once a group, a response's tokens but its last,
which no engine computes. What has no record is chosen by the router itself. A layout counts the tokens that a loss
depends on: not the last of a response, and no padding.

Invariants:
- the layouts are those of the ids: `ranks.tensors.assemble`, packed or padded, and `shared_prefix.packed_row`;
- a shard has the references of routes; a rank reads them for the micro-batch at hand, because those of a whole batch
  are tens of gigabytes at the longest lengths.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golongrl.routes.groups import GroupRoutes
from golongrl.routes.model import MoeRouting
from golongrl.routes.reference import RoutesReference

Experts = NDArray[Any]  # [tokens, layers, k], uint8 or uint16


@dataclass(frozen=True)
class SampleRoutes:
    """Where the routes of a batch are."""

    routing: MoeRouting
    groups: list[RoutesReference | None]  # one a group; None where an older worker recorded nothing
    place: list[int]  # of every response, in its group


@dataclass(frozen=True)
class ShardRoutes:
    """Where the routes of a shard are, and what they are of."""

    routing: MoeRouting
    groups: list[RoutesReference | None]  # one a prompt
    prompt: list[int]  # of every response: its prompt,
    place: list[int]  # its place in its group,
    lengths: list[tuple[int, int]]  # tokens of its prompt and of itself

    def needed(self, responses: Iterable[int]) -> set[RoutesReference]:
        """The files with the routes of these responses."""
        return {found for i in responses if (found := self.groups[self.prompt[i]]) is not None}


@dataclass(frozen=True)
class RowRoutes:
    """Of the T tokens that a rank computes at once."""

    experts: Experts  # [T, layers, k]; 0 where nothing is recorded
    recorded: NDArray[np.bool_]  # [T]
    tokens: int  # of them, those that a loss depends on


Read = Callable[[RoutesReference], GroupRoutes]


@dataclass(frozen=True)
class _Piece:
    """Some tokens next to each other; the rows of their records, as many."""

    length: int
    rows: Experts | None = None
    counts: bool = True


def plain_row(
    routes: ShardRoutes, responses: Sequence[int], here: slice, read: Read, *, width: int | None = None
) -> RowRoutes:
    """Of whole sequences, one behind the other.

    Args:
        responses: which of the shard's they are.
        here: the tokens of this rank; what lies behind the last sequence is padding.
        read: gives the routes that a reference names.
        width: every sequence is padded to it; None: packed.
    """

    def pieces() -> Iterator[_Piece]:
        for response in responses:
            before, length = routes.lengths[response]
            prompt, own = _recorded(routes, response, read)
            yield _Piece(before, prompt)
            yield _Piece(length - 1, own)
            yield _Piece(1 if width is None else width - before - length + 1, counts=False)

    return _laid_out(routes.routing, pieces(), here)


def shared_row(routes: ShardRoutes, responses: Sequence[int], here: slice, read: Read) -> RowRoutes:
    """Of a packed row whose prompts are computed once, with the arguments of `plain_row`."""

    def pieces() -> Iterator[_Piece]:
        last = -1
        for response in responses:
            before, length = routes.lengths[response]
            prompt, own = _recorded(routes, response, read)
            if routes.prompt[response] != last:
                yield _Piece(before - 1, None if prompt is None else prompt[:-1])
            last = routes.prompt[response]
            yield _Piece(1, None if prompt is None else prompt[-1:])
            yield _Piece(length - 1, own)

    return _laid_out(routes.routing, pieces(), here)


def _recorded(routes: ShardRoutes, response: int, read: Read) -> tuple[Experts | None, Experts | None]:
    """Rows of a response's prompt, and of its tokens but the last."""
    reference = routes.groups[routes.prompt[response]]
    if reference is None:
        return None, None
    group = read(reference)
    return group.prompt, group.responses[routes.place[response]]


def _laid_out(routing: MoeRouting, pieces: Iterable[_Piece], here: slice) -> RowRoutes:
    """The part `here` of the pieces, one behind the other."""
    shape = (here.stop - here.start, len(routing.layers), routing.top_k)
    experts = np.zeros(shape, np.uint8 if routing.itemsize == 1 else np.uint16)
    recorded = np.zeros(len(experts), np.bool_)
    tokens = place = 0
    for piece in pieces:
        first, last = max(here.start, place), min(here.stop, place + piece.length)
        if first < last:
            if piece.counts:
                tokens += last - first
            if piece.rows is not None:
                to = slice(first - here.start, last - here.start)
                experts[to] = piece.rows[first - place : last - place]
                recorded[to] = True
        place += piece.length
    return RowRoutes(experts, recorded, tokens)
