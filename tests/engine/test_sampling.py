"""Sampling: the right distribution, the right log-prob, and one row's draw is nobody else's business."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from golongrl.engine.sampling import Uniforms, sample, seed_of, truncate

LOGITS = torch.tensor([[2.0, 1.0, 0.5, -1.0, 0.0]])


def draw(logits: torch.Tensor, uniform: torch.Tensor, temperature=1.0, top_k=-1, top_p=1.0):
    rows = len(uniform)
    return sample(
        logits.expand(rows, -1).clone(),
        torch.full((rows,), temperature),
        torch.full((rows,), top_k),
        torch.full((rows,), top_p, dtype=torch.float64),
        uniform,
    )


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_frequencies_follow_the_softmax(temperature: float) -> None:
    # An even grid of uniforms turns the check into arithmetic: each token gets its share of the grid, to one cell.
    grid = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    tokens, logprobs = draw(LOGITS, grid, temperature)
    expected = torch.softmax(LOGITS[0] / temperature, dim=-1)
    shares = torch.bincount(tokens, minlength=5) / 20000
    assert torch.allclose(shares, expected, atol=1e-4)
    assert torch.allclose(logprobs.exp(), expected[tokens], atol=1e-6)


def reference_truncation(probs: np.ndarray, top_k: int, top_p: float) -> set[int]:
    """The kept tokens of one row, by the definition."""
    order = sorted(range(len(probs)), key=lambda token: -probs[token])
    kept, mass = [], 0.0
    for rank, token in enumerate(order):
        if rank and ((top_k > 0 and rank >= top_k) or (top_p < 1 and mass >= top_p)):
            break
        kept.append(token)
        mass += probs[token]
    return set(kept)


@given(
    weights=st.lists(st.integers(1, 1000), min_size=2, max_size=12, unique=True),
    top_k=st.integers(-1, 13).filter(lambda k: k != 0),
    top_p=st.sampled_from([0.05, 0.3, 0.5, 0.9, 1.0]),
)
def test_truncation_is_the_definition(weights: list[int], top_k: int, top_p: float) -> None:
    probs = torch.tensor([weights], dtype=torch.float64)
    probs /= probs.sum()
    got = truncate(probs.clone(), torch.tensor([top_k]), torch.tensor([top_p], dtype=torch.float64))[0]
    kept = {token for token, value in enumerate(got.tolist()) if value > 0}
    assert kept == reference_truncation(probs[0].numpy(), top_k, top_p)
    assert all(got[token] == probs[0, token] for token in kept)


def test_truncated_tokens_are_never_drawn_and_logprobs_stay_untruncated() -> None:
    edges = torch.tensor([0.0, 0.25, 0.5, 0.75, 1 - 2**-24], dtype=torch.float64)
    tokens, logprobs = draw(LOGITS, edges, top_k=2)
    assert set(tokens.tolist()) <= {0, 1}
    assert torch.allclose(logprobs, torch.log_softmax(LOGITS[0], -1)[tokens])


def test_a_forbidden_token_has_no_probability() -> None:
    masked = LOGITS.clone()
    masked[0, [0, 4]] = float("-inf")
    tokens, logprobs = draw(masked, torch.tensor([0.0, 0.999999], dtype=torch.float64))
    assert tokens.tolist() == [1, 3]
    assert torch.isfinite(logprobs).all()


def test_greedy_rows_beside_sampled_ones() -> None:
    tokens, logprobs = sample(
        LOGITS.expand(2, -1).clone(),
        torch.tensor([0.0, 1.0]),
        torch.tensor([-1, -1]),
        torch.ones(2, dtype=torch.float64),
        torch.tensor([0.9999, 0.9999], dtype=torch.float64),
    )
    assert tokens.tolist() == [0, 4]
    assert torch.allclose(logprobs, torch.log_softmax(LOGITS[0], -1)[tokens])


def test_a_rows_draw_does_not_depend_on_truncation_of_others() -> None:
    uniform = torch.tensor([0.3, 0.6], dtype=torch.float64)
    alone, _ = draw(LOGITS, uniform[:1])
    beside, _ = sample(
        LOGITS.expand(2, -1).clone(),
        torch.ones(2),
        torch.tensor([-1, 1]),
        torch.tensor([1.0, 0.5], dtype=torch.float64),
        uniform,
    )
    assert beside[0] == alone[0]
    assert beside[1] == 0


def test_uniforms_are_a_function_of_seed_and_position() -> None:
    ahead, stepwise = Uniforms(seed_of(1, "a")), Uniforms(seed_of(1, "a"))
    late = ahead[500]
    assert [stepwise[i] for i in range(501)][500] == late
    assert Uniforms(seed_of(1, "b"))[500] != late
    values = [ahead[i] for i in range(2000)]
    assert 0 <= min(values) < max(values) < 1
    assert abs(sum(values) / 2000 - 0.5) < 0.03
