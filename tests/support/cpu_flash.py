"""Flash attention's interface on a CPU, so that what is built around the kernel (verl's Ulysses) runs as on a GPU.

Only the innermost kernel call is replaced, by PyTorch's attention under a mask that keeps packed sequences apart.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def install() -> None:
    """In this process: transformers takes `flash_attention_2`, and verl's wrapper of it calls `attention`."""
    from transformers import PreTrainedModel, modeling_utils
    from verl.models.transformers import monkey_patch

    PreTrainedModel._flash_attn_can_dispatch = lambda *_, **__: True  # type: ignore[assignment]
    modeling_utils.lazy_import_flash_attention = lambda *_, **__: None
    monkey_patch._flash_attention_forward = attention
    dist.all_to_all = _all_to_all


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    query_length: int,
    *_: Any,
    position_ids: Tensor,
    softmax_scale: float | None = None,
    **__: Any,
) -> Tensor:
    """Causal attention within each packed sequence, told apart by positions; [1, tokens, heads, size] in and out."""
    assert attention_mask is None
    assert query.shape[:2] == key.shape[:2] == position_ids.shape
    sequence = (position_ids[0] == 0).cumsum(0)
    mask = (sequence[:, None] == sequence[None, :]).tril()
    repeats = query.shape[2] // key.shape[2]
    heads = [t.repeat_interleave(n, dim=2).transpose(1, 2) for t, n in ((query, 1), (key, repeats), (value, repeats))]
    output = torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=mask, scale=softmax_scale)
    return output.transpose(1, 2)


def _all_to_all(output: list[Tensor], parts: list[Tensor], group: Any = None, async_op: bool = False) -> None:
    """gloo exchanges one tensor alone."""
    assert not async_op
    received = torch.empty((len(parts), *parts[0].shape), dtype=parts[0].dtype)
    dist.all_to_all_single(received, torch.stack(parts), group=group)
    for place, part in zip(output, received, strict=True):
        place.copy_(part)
