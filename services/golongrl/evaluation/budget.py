"""Fitting a prompt into the context: what may be kept, and the three rules for a prompt that is too long.

The prompt gets the context minus the answer (and the chat's own tokens are part of the prompt): an engine refuses a
request whose prompt and `max_tokens` together exceed its context, so that cutting the prompt to the whole context, as
the released evaluation does at 512K and 1M, loses every such sample.

Rules: `skip` counts the problem as skipped and asks nothing; `middle` cuts the middle out of the longest message, by
the evaluated model's own tokens; `refuse` ends the run with an error, for benchmarks that must fit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from golongrl.evaluation.errors import EvaluationError
from golongrl.evaluation.kinds import Message, Rule

# Cutting text changes how its new seam is tokenised, by a few tokens; each round takes the excess away.
_ROUNDS: Final = 4


@dataclass(frozen=True, slots=True)
class Fit:
    """Prompt tokens to keep, and answer tokens to ask for."""

    keep: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Fitted:
    """The messages to send, or None where the problem is skipped; and how long the prompt was and is."""

    messages: list[Message] | None
    prompt_tokens: int
    kept_tokens: int

    @property
    def cut(self) -> bool:
        """Whether text was taken out."""
        return self.messages is not None and self.kept_tokens < self.prompt_tokens


def fit(prompt_tokens: int, max_tokens: int, context_length: int, input_tokens: int | None = None) -> Fit:
    """How much of a prompt fits beside the answer.

    Args:
        input_tokens: a bound on the prompt below what the context leaves, if the benchmark has one.

    Raises:
        EvaluationError: the answer alone does not fit.
    """
    if prompt_tokens < 0 or max_tokens < 1 or context_length < 1:
        raise EvaluationError(
            f"budget: prompt_tokens {prompt_tokens}, max_tokens {max_tokens} and context_length {context_length} "
            "must be positive"
        )
    room = context_length - max_tokens
    if room < 1:
        raise EvaluationError(
            f"budget: max_tokens {max_tokens} leaves no room for a prompt in a context of {context_length}; "
            "lower max_tokens or start the engine with a longer context"
        )
    limit = room if input_tokens is None else min(room, input_tokens)
    return Fit(min(prompt_tokens, limit), max_tokens)


def cut_middle(ids: Sequence[int], keep: int) -> list[int]:
    """The first and last tokens, `keep` in all; the first half has the odd one."""
    if len(ids) <= keep:
        return list(ids)
    tail = keep // 2
    return [*ids[: keep - tail], *(ids[-tail:] if tail else ())]


def apply(
    rule: Rule,
    messages: Sequence[Message],
    keep: int,
    *,
    count: Callable[[Sequence[Message]], int],
    encode: Callable[[str], Sequence[int]],
    decode: Callable[[Sequence[int]], str],
    where: str,
) -> Fitted:
    """Make a chat fit into `keep` tokens by a rule.

    Args:
        count: the tokens of the rendered chat.
        encode: a text's tokens, without those of the chat template.
        decode: back.
        where: how messages name the problem.

    Raises:
        EvaluationError: the rule is `refuse`, or what surrounds the longest message is too long by itself.
    """
    tokens = count(messages)
    if tokens <= keep:
        return Fitted(list(messages), tokens, tokens)
    if rule == "skip":
        return Fitted(None, tokens, 0)
    if rule == "refuse":
        raise EvaluationError(
            f"{where}: the prompt has {tokens} tokens and {keep} fit; start the engine with a longer context, lower "
            "max_tokens, or choose another rule (skip, middle)"
        )
    longest = max(range(len(messages)), key=lambda i: len(messages[i]["content"]))
    ids = list(encode(messages[longest]["content"]))
    room = len(ids) - (tokens - keep)
    for _ in range(_ROUNDS):
        if room < 1:
            break
        content = decode(cut_middle(ids, room))
        shorter = [*messages]
        shorter[longest] = {**messages[longest], "content": content}
        kept = count(shorter)
        if kept <= keep:
            return Fitted(shorter, tokens, kept)
        room -= kept - keep
    raise EvaluationError(
        f"{where}: the prompt cannot be cut to {keep} tokens: what surrounds its longest message is too long by itself"
    )
