"""Attention over a packed row whose segments share prefixes, in two parts merged by their log-sum-exps.

Every part of the row takes three kinds of kernel calls: the prompt over itself (causal), all segments' queries over the
prompt (not causal, one call), and each segment over itself (causal). What a segment's query got from the prompt and
from its own segment is merged with the weights that one softmax over both would have given; the backward pass calls the
kernels' own backward with the merged output and log-sum-exp, as ring attention does. The prompt's keys and values are
never repeated. Under Ulysses every rank has the whole row for some of the heads, so the two all-to-alls happen here.

Kernels are PyTorch's flash attention: of the CPU (float32, bfloat16), or of CUDA (bfloat16, float16).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from verl.utils.ulysses import (
    gather_heads_scatter_seq,
    gather_seq_scatter_heads,
    get_ulysses_sequence_parallel_world_size,
)

from golongrl.learner.batch.shared_prefix import PackedPart, PackedRow

# The name of this attention in transformers.
NAME = "golongrl_shared_prefix"


@dataclass(frozen=True)
class Layout:
    """Where the parts of a packed row stand: what the attention needs of it. `tokens` counts a padded end, too."""

    parts: tuple[PackedPart, ...]
    tokens: int
    device: torch.device

    @classmethod
    def of(cls, row: PackedRow, device: torch.device, padding: int = 0) -> "Layout":
        """Of a row with `padding` tokens behind it, which attend to nothing."""
        return cls(row.parts, len(row.ids) + padding, device)

    @cached_property
    def calls(self) -> "tuple[_Slice | _Segments, ...]":
        """The kernel calls of the row, the same in every layer and in the backward pass.

        Segments come last: they are merged with what their prompts gave them.
        """
        calls: list[_Slice | _Segments] = []
        prefixed = torch.zeros(self.tokens, dtype=torch.bool)
        for part in self.parts:
            if part.prefix_end > part.start:
                calls.append(_Slice(part.start, part.prefix_end, part.start, part.prefix_end, causal=True))
                calls.append(_Slice(part.prefix_end, part.end, part.start, part.prefix_end, causal=False))
                prefixed[part.prefix_end : part.end] = True
        for rows, real in self._segment_batches():
            batch = (rows[real], rows, real, prefixed[rows[real]])
            calls.append(_Segments(*(tensor.to(self.device) for tensor in batch)))
        return tuple(calls)

    def _segment_batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All segments in batches of similar length: [b, longest] rows, and which of them are real.

        The end of a shorter segment repeats its last token; under a causal mask no real query sees it.
        """
        segments = [segment for part in self.parts for segment in part.segments]
        # Lengths of one power of two together: a batch computes at most four times the pairs of its segments.
        for _, group in groupby(sorted(segments, key=_length), key=lambda segment: _length(segment).bit_length()):
            bounds = torch.tensor(list(group))
            rows = bounds[:, :1] + torch.arange(int((bounds[:, 1] - bounds[:, 0]).max()))
            yield rows.clamp(max=bounds[:, 1:] - 1), rows < bounds[:, 1:]


def _length(segment: tuple[int, int]) -> int:
    return segment[1] - segment[0]


def allowed(layout: Layout, query: Tensor, key: Tensor) -> Tensor:
    """Whether a query position sees a key position (broadcast): the definition that the kernels are tested against."""
    part = torch.full((layout.tokens,), -1, device=query.device)
    segment = torch.full((layout.tokens,), -1, device=query.device)
    for index, where in enumerate(layout.parts):
        part[where.start : where.end] = index
        for number, (start, end) in enumerate(where.segments):
            segment[start:end] = number
    same = (part[query] == part[key]) & (part[query] >= 0)
    in_prompt = segment[key] < 0
    return same & (query >= key) & (in_prompt | (segment[query] == segment[key]))


def register() -> None:
    """Make transformers know this attention by NAME, with no mask: the layout says what is seen."""
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, _no_mask)


def shared_prefix_attention(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float) -> Tensor:
    """Attention of a packed row.

    Args:
        query: [1, heads, tokens, size]; `key` and `value` may have fewer heads, a divisor of the queries'.

    Returns:
        [1, heads, tokens, size]; zero for padding.
    """
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = (tensor.repeat_interleave(repeats, dim=1) for tensor in (key, value))
    output: Tensor = _TwoParts.apply(query, key, value, layout, scale)  # type: ignore[no-untyped-call]
    return output


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    shared_prefix: Layout | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """What transformers calls: [1, heads, tokens of this rank, size] in, [1, tokens of this rank, heads, size] out."""
    if shared_prefix is None or attention_mask is not None:
        raise RuntimeError(f"{type(module).__name__} did not hand the layout of shared prompts to its attention")
    degree = get_ulysses_sequence_parallel_world_size()
    if degree > 1:
        repeats = max(degree // key.shape[1], 1)
        key, value = (tensor.repeat_interleave(repeats, dim=1) for tensor in (key, value))
        query, key, value = (gather_seq_scatter_heads(t, seq_dim=2, head_dim=1) for t in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    output = shared_prefix_attention(query, key, value, shared_prefix, scale).transpose(1, 2)
    if degree > 1:
        output = gather_heads_scatter_seq(output, seq_dim=1, head_dim=2)
    return output, None


def _no_mask(*_: Any, **__: Any) -> None:
    return None


class _TwoParts(torch.autograd.Function):
    """query, key, value [1, heads, tokens, size] with equal heads."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: Layout, scale: float) -> Tensor:
        output = torch.zeros_like(query)
        lse = torch.zeros(query.shape[:3], dtype=torch.float32, device=query.device)
        with torch.no_grad():
            for call in layout.calls:
                part, part_lse = _forward(*call.take(query, key, value), call.causal, scale)
                call.merge(output, lse, part, part_lse)
        ctx.save_for_backward(query, key, value, output, lse)
        ctx.layout, ctx.scale = layout, scale
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, output, lse = ctx.saved_tensors
        gradients = tuple(torch.zeros_like(tensor) for tensor in (query, key, value))
        for call in ctx.layout.calls:
            q, k, v = call.take(query, key, value)
            merged = call.queries(output), call.queries(lse)
            call.add(gradients, _backward(call.incoming(gradient), q, k, v, *merged, call.causal, ctx.scale))
        return *gradients, None, None


@dataclass(frozen=True)
class _Slice:
    """A call with the rows [q0, q1) as queries and [k0, k1) as keys, the first to give these queries anything."""

    q0: int
    q1: int
    k0: int
    k1: int
    causal: bool

    def take(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return query[:, :, self.q0 : self.q1], key[:, :, self.k0 : self.k1], value[:, :, self.k0 : self.k1]

    def queries(self, tensor: Tensor) -> Tensor:
        return tensor[:, :, self.q0 : self.q1]

    def incoming(self, gradient: Tensor) -> Tensor:
        return self.queries(gradient)

    def merge(self, output: Tensor, lse: Tensor, part: Tensor, part_lse: Tensor) -> None:
        output[:, :, self.q0 : self.q1] = part
        lse[:, :, self.q0 : self.q1] = part_lse

    def add(self, gradients: tuple[Tensor, ...], found: tuple[Tensor, ...]) -> None:
        for gradient, part, (a, b) in zip(
            gradients, found, ((self.q0, self.q1), (self.k0, self.k1), (self.k0, self.k1)), strict=True
        ):
            gradient[:, :, a:b] += part


@dataclass(frozen=True)
class _Segments:
    """A causal call on a batch of segments, each over itself."""

    flat: Tensor  # [k] the rows of the segments, without padding
    rows: Tensor  # [b, longest]
    real: Tensor  # [b, longest]
    merged: Tensor  # [k] whether they saw their prompt before
    causal = True

    def take(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.queries(query), self.queries(key), self.queries(value)

    def queries(self, tensor: Tensor) -> Tensor:
        """[1, heads, tokens, ...] -> [b, heads, longest, ...]"""
        return tensor[0][:, self.rows].transpose(0, 1).contiguous()

    def incoming(self, gradient: Tensor) -> Tensor:
        """Of the real queries: what pads a segment gives its keys nothing."""
        return self.queries(gradient) * self.real[:, None, :, None]

    def merge(self, output: Tensor, lse: Tensor, part: Tensor, part_lse: Tensor) -> None:
        """With what the prompt gave to the same rows; a prompt of one token gave nothing."""
        rows, heads = self.flat, output.shape[1]
        new = part.transpose(1, 2)[self.real].transpose(0, 1)  # [heads, tokens, size]
        new_lse = part_lse.transpose(1, 2)[self.real].transpose(0, 1)
        before = torch.where(self.merged.expand(heads, -1), lse[0][:, rows], -torch.inf)
        both = torch.logaddexp(before, new_lse)
        old_share, new_share = ((x - both).exp().unsqueeze(-1) for x in (before, new_lse))
        output[0, :, rows] = (output[0][:, rows] * old_share + new * new_share).to(output.dtype)
        lse[0, :, rows] = both

    def add(self, gradients: tuple[Tensor, ...], found: tuple[Tensor, ...]) -> None:
        for gradient, part in zip(gradients, found, strict=True):
            gradient[0].index_add_(1, self.flat, part.transpose(1, 2)[self.real].transpose(0, 1))


def _forward(query: Tensor, key: Tensor, value: Tensor, causal: bool, scale: float) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp (float32) of PyTorch's flash attention."""
    if query.device.type == "cpu":
        output, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, causal, attn_mask=None, scale=scale
        )
    else:
        output, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(
            query, key, value, 0.0, causal, False, scale=scale
        )
    return output, lse


def _backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, output: Tensor, lse: Tensor, causal: bool, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key, value, given the output and log-sum-exp of the whole softmax."""
    if query.device.type == "cpu":
        found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            gradient.contiguous(), query, key, value, output, lse.contiguous(), 0.0, causal, attn_mask=None, scale=scale
        )
        return found
    nothing = torch.empty(0, dtype=torch.int64, device=query.device)  # no dropout, so no state of its random numbers
    found = torch.ops.aten._scaled_dot_product_flash_attention_backward(
        gradient.contiguous(), query, key, value, output, lse.contiguous(), None, None, query.shape[2], key.shape[2],
        0.0, causal, nothing, nothing, scale=scale,
    )  # fmt: skip
    return found
