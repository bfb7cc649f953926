"""Drawing the next tokens of a batch, each row with its own temperature, truncation and random numbers.

The log-prob of a token is log-softmax(logits / temperature) in float32, before top-p and top-k: what SGLang reports,
and with truncation off exactly the distribution sampled from. A row draws by inverting its cumulative distribution at a
uniform number from a counter-based generator keyed by the request's seed, so that the draw depends on (seed, position)
and on nothing else in the batch.
"""

import hashlib

import numpy as np
import torch

# Uniform numbers drawn ahead at a time; larger than most short answers, small enough to cost nothing.
_BLOCK = 128


def seed_of(*parts: object) -> int:
    """A 128-bit key from anything with a stable repr; the same parts give the same key in every process."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=16).digest(), "big")


class Uniforms:
    """The uniform numbers in [0, 1) of one request by output position; a pure function of (seed, position)."""

    def __init__(self, seed: int) -> None:
        self._generator = np.random.Generator(np.random.Philox(key=seed))
        self._drawn: list[float] = []

    def __getitem__(self, position: int) -> float:
        while position >= len(self._drawn):
            # float32 numbers: at most 1 - 2^-24, so that u * total stays below total in float64.
            self._drawn.extend(self._generator.random(_BLOCK, dtype=np.float32).tolist())
        return self._drawn[position]


def sample(
    logits: torch.Tensor, temperature: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor, uniform: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw a token for each row.

    Args:
        logits: [B, V] float32.
        temperature: [B]; 0 is greedy, with the log-prob at temperature 1.
        top_k: [B] int64; below 1 is off.
        top_p: [B]; 1 is off.
        uniform: [B] float64 in [0, 1).

    Returns:
        tokens [B] int64, log-probs [B] float32.
    """
    greedy = temperature == 0
    scaled = logits / torch.where(greedy, 1.0, temperature).unsqueeze(1)
    logprobs = torch.log_softmax(scaled, dim=-1)
    probs = logprobs.double().exp_()
    if bool(((top_k > 0) | (top_p < 1)).any()):
        probs = truncate(probs, top_k, top_p)
    cumulative = probs.cumsum(dim=-1)
    targets = (uniform * cumulative[:, -1]).unsqueeze(1)
    # The first token whose cumulative probability exceeds the target: one of probability 0 is never drawn.
    tokens = torch.searchsorted(cumulative, targets, right=True).squeeze(1)
    tokens = torch.where(greedy, logits.argmax(dim=-1), tokens)
    return tokens, logprobs.gather(1, tokens.unsqueeze(1)).squeeze(1)


def truncate(probs: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """`probs` [B, V] with 0 outside each row's top k and nucleus (the fewest tokens that reach top_p; at least one)."""
    ordered, order = probs.sort(dim=-1, descending=True)
    rank = torch.arange(probs.shape[1]).unsqueeze(0)
    drop = (rank >= top_k.unsqueeze(1)) & (top_k > 0).unsqueeze(1)
    before = ordered.cumsum(dim=-1) - ordered
    drop |= (before >= top_p.unsqueeze(1)) & (top_p < 1).unsqueeze(1)
    drop[:, 0] = False
    return probs.masked_fill(drop.gather(1, order.argsort(dim=-1)), 0.0)
