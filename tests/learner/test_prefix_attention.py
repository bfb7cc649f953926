"""Attention in two parts against one masked softmax, by values and gradients, and against PyTorch's FlexAttention."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from golongrl.learner.batch.shared_prefix import packed_row
from golongrl.learner.ranks.prefix_attention import Layout, allowed, shared_prefix_attention

SIZE = 16
CPU = torch.device("cpu")


def _layout(groups: list[tuple[int, list[int]]], padding: int) -> Layout:
    row = packed_row(
        [np.zeros(prompt, np.int32) for prompt, _ in groups],
        [np.zeros(length, np.int32) for _, lengths in groups for length in lengths],
        np.repeat(np.arange(len(groups)), [len(lengths) for _, lengths in groups]),
    )
    return Layout.of(row, CPU, padding)


def _inputs(layout: Layout, heads: int, key_heads: int, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(1, count, layout.tokens, SIZE) for count in (heads, key_heads, key_heads)]
    return [torch.randn(size, generator=generator, dtype=torch.float32).requires_grad_() for size in shapes]


def _masked(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: Layout, scale: float) -> torch.Tensor:
    """The definition: one softmax over what is allowed; padding gets zero."""
    places = torch.arange(layout.tokens)
    mask = allowed(layout, places[:, None], places[None])
    repeats = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(repeats, dim=1) for tensor in (key, value))
    scores = (query @ key.transpose(-1, -2)) * scale
    shares = torch.softmax(scores.masked_fill(~mask, -1e30), dim=-1) * mask
    return shares @ value


groups = st.lists(
    st.tuples(st.integers(1, 30), st.lists(st.integers(1, 20), min_size=1, max_size=5)), min_size=1, max_size=4
)


@given(groups, st.integers(0, 3), st.sampled_from([(2, 2), (4, 2), (4, 1)]), st.integers(0, 99))
def test_values_and_gradients_are_those_of_one_softmax(
    made: list[tuple[int, list[int]]], padding: int, heads: tuple[int, int], seed: int
) -> None:
    layout = _layout(made, padding)
    inputs = _inputs(layout, *heads, seed)
    gradient = torch.randn((1, heads[0], layout.tokens, SIZE), generator=torch.Generator().manual_seed(seed + 1))
    results = []
    for attention in (shared_prefix_attention, _masked):
        output = attention(*inputs, layout, 0.3)
        results.append((output.detach(), *torch.autograd.grad(output, inputs, gradient)))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, atol=2e-5, rtol=1e-5)


def test_flex_attention_sees_the_same() -> None:
    """The definition as a mask of FlexAttention, run eagerly."""
    layout = _layout([(9, [4, 7, 1]), (1, [3]), (20, [5, 5])], padding=0)
    query, key, value = (tensor.detach() for tensor in _inputs(layout, 2, 2, seed=3))
    mask = create_block_mask(
        lambda b, h, q, k: allowed(layout, q, k), None, None, layout.tokens, layout.tokens, device="cpu"
    )
    expected = flex_attention(query, key, value, block_mask=mask, scale=0.3)
    torch.testing.assert_close(shared_prefix_attention(query, key, value, layout, 0.3), expected, atol=2e-5, rtol=1e-5)


def test_a_response_sees_its_prompt_and_itself_alone() -> None:
    """Changing one response changes no other; changing the prompt changes all of its group, and no other group."""
    layout = _layout([(6, [3, 4]), (5, [2])], padding=0)
    query, key, value = (tensor.detach() for tensor in _inputs(layout, 2, 2, seed=5))
    before = shared_prefix_attention(query, key, value, layout, 0.3)

    def changed(start: int, end: int) -> list[int]:
        other = value.clone()
        other[:, :, start:end] += 1.0
        after = shared_prefix_attention(query, key, other, layout, 0.3)
        return (after != before).any(dim=3).any(dim=1)[0].nonzero()[:, 0].tolist()

    prompt, first, second, other_group = (range(5), range(5, 8), range(8, 12), range(12, 18))
    assert changed(first.start, first.stop) == list(first)
    assert changed(second.start, second.stop) == list(second)
    assert changed(prompt.start, prompt.stop) == [*prompt, *first, *second]
    assert changed(other_group.start, other_group.stop) == list(other_group)


def test_a_model_that_drops_the_layout_is_refused() -> None:
    from golongrl.learner.ranks.prefix_attention import _attention

    tensor = torch.zeros(1, 1, 2, SIZE)
    with pytest.raises(RuntimeError, match="Linear did not hand the layout"):
        _attention(torch.nn.Linear(1, 1), tensor, tensor, tensor, None)


@pytest.mark.parametrize("causal", [True, False])
def test_calls_of_the_gpu_kernels_fit_their_signatures(causal: bool) -> None:
    """Shapes alone, on PyTorch's meta device, which takes the same branch as a GPU."""
    from golongrl.learner.ranks.prefix_attention import _backward, _forward

    query, key = (torch.empty(1, 4, tokens, SIZE, dtype=torch.bfloat16, device="meta") for tokens in (6, 10))
    output, lse = _forward(query, key, key, causal, 0.3)
    assert (output.shape, lse.shape, lse.dtype) == (query.shape, query.shape[:3], torch.float32)
    found = _backward(torch.empty_like(output), query, key, key, output, lse, causal, 0.3)
    assert [gradient.shape for gradient in found] == [query.shape, key.shape, key.shape]
