"""Buckets keep every tensor in order within their size; engines' names stand for the right bytes."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from golongrl.broadcast.plan import TensorInfo, cut, engine_names


@given(st.lists(st.integers(0, 100), max_size=40), st.integers(1, 120))
def test_buckets_keep_order_and_size(sizes: list[int], limit: int) -> None:
    tensors = [TensorInfo(str(i), "float32", (size,), size) for i, size in enumerate(sizes)]
    buckets = cut(tensors, limit)
    assert [tensor for bucket in buckets for tensor in bucket] == tensors
    assert all(bucket for bucket in buckets)
    assert all(sum(t.bytes for t in bucket) <= limit or len(bucket) == 1 for bucket in buckets)
    # No two neighbours would have fitted into one.
    for one, two in pairwise(buckets):
        assert sum(t.bytes for t in one) + two[0].bytes > limit


def test_a_dense_layer_as_sglang_holds_it() -> None:
    layer = "model.layers.0"
    names = [
        "model.embed_tokens.weight",
        *[f"{layer}.self_attn.{part}_proj.weight" for part in "qkvo"],
        *[f"{layer}.mlp.{part}_proj.weight" for part in ("gate", "up", "down")],
    ]
    shown = engine_names(names)
    assert {name: shown[name] for name in names} == {name: (name,) for name in names}
    assert {name: parts for name, parts in shown.items() if name not in names} == {
        f"{layer}.self_attn.qkv_proj.weight": tuple(f"{layer}.self_attn.{part}_proj.weight" for part in "qkv"),
        f"{layer}.mlp.gate_up_proj.weight": (f"{layer}.mlp.gate_proj.weight", f"{layer}.mlp.up_proj.weight"),
        "lm_head.weight": ("model.embed_tokens.weight",),
    }


def test_experts_are_stacked_in_their_order() -> None:
    layer = "model.layers.3.mlp.experts"
    names = [
        "lm_head.weight",
        *[f"{layer}.{i}.{part}_proj.weight" for i in range(11) for part in ("gate", "up", "down")],
    ]
    shown = engine_names(names)
    assert shown[f"{layer}.w13_weight"][:4] == (
        f"{layer}.0.gate_proj.weight",
        f"{layer}.0.up_proj.weight",
        f"{layer}.1.gate_proj.weight",
        f"{layer}.1.up_proj.weight",
    )
    assert shown[f"{layer}.w2_weight"] == tuple(f"{layer}.{i}.down_proj.weight" for i in range(11))
    assert shown["lm_head.weight"] == ("lm_head.weight",)
