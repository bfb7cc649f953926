"""`samples.jsonl`: of every step, how its batch is spread, and a few of its groups as text.

Invariants:
- a step costs a bounded number of characters, however long its prompts are;
- which groups are kept depends on the batch and the seed alone, so a replayed step keeps the same ones;
- a step is there once: a resumed learner cuts off what came after its checkpoint;
- nothing here can end or delay a run: where the file cannot be written, one line reports it, and no more is written.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import structlog

from golongrl.data.chat import Chat
from golongrl.data.errors import DataError
from golongrl.queue import Batch, Group
from golongrl.queue.schema import Response
from golongrl.recipe import Recipe
from golongrl.telemetry.journal import SAMPLES, Journal

log = structlog.get_logger()

FILE: Final = SAMPLES
# Characters of a prompt and of a response: its beginning and its end say most.
PROMPT_CHARS: Final = 2000
RESPONSE_CHARS: Final = 2000
# Responses of a group: the best, the worst, and some between.
MOST_RESPONSES: Final = 4
# A token is rarely fewer characters than a quarter; more need not be decoded.
_TOKENS: Final = 2000
PASS_RATE_BINS: Final = 10
# Of advantages, which are a few standard deviations wide.
ADVANTAGE_EDGES: Final = tuple(round(-3 + 0.5 * step, 1) for step in range(13))

Decode = Callable[[Sequence[int]], str]
Json = dict[str, Any]


def choose(groups: Sequence[Group], count: int, seed: int, step: int) -> list[tuple[str, Group]]:
    """The groups to keep of a batch: the worst, the best, then random ones, each with why. Pure."""
    scored = sorted((rate, group.uid, group) for group in groups if (rate := mean_reward(group)) is not None)
    ends = [("worst", scored[0][2])] if scored else []
    if len(scored) > 1:
        ends.append(("best", scored[-1][2]))
    taken = {group.uid for _, group in ends}
    rest = sorted((group for group in groups if group.uid not in taken), key=lambda group: group.uid)
    random.Random(f"{seed}/{step}").shuffle(rest)
    return [*ends, *(("random", group) for group in rest)][:count]


def mean_reward(group: Group) -> float | None:
    """Of its scored responses; None without any."""
    rewards = [response.reward for response in group.responses if response.reward is not None]
    return sum(rewards) / len(rewards) if rewards else None


def spread(batch: Batch, advantages: Sequence[float]) -> Json:
    """How rewards and advantages of a batch are spread, as counts; quantiles of reward by task type. Pure."""
    by_task: defaultdict[str, list[float]] = defaultdict(list)
    for group in batch.groups:
        by_task[group.task] += [response.reward for response in group.responses if response.reward is not None]
    rates = [rate for group in batch.groups if (rate := mean_reward(group)) is not None]
    widths = np.clip(np.asarray(advantages, float), ADVANTAGE_EDGES[0], ADVANTAGE_EDGES[-1])
    return {
        "step": batch.step,
        "kind": "batch",
        "pass_rates": np.histogram(np.clip(rates, 0, 1), PASS_RATE_BINS, (0.0, 1.0))[0].tolist(),
        "advantages": np.histogram(widths, np.asarray(ADVANTAGE_EDGES))[0].tolist(),
        "tasks": {
            task: [round(float(value), 4) for value in np.quantile(rewards, (0.1, 0.5, 0.9))]
            for task, rewards in sorted(by_task.items())
            if rewards
        },
    }


def describe(step: int, why: str, group: Group, decode: Decode) -> Json:
    """A group as text, shortened."""
    scored = sorted(group.responses, key=lambda each: -1.0 if each.reward is None else each.reward)
    last = len(scored) - 1
    picked = sorted({round(last * place / (MOST_RESPONSES - 1)) for place in range(MOST_RESPONSES)})
    return {
        "step": step,
        "kind": "group",
        "why": why,
        "uid": group.uid,
        "task": group.task,
        "metric": group.metric,
        "worker": group.worker,
        "reward": mean_reward(group),
        "of": len(group.responses),
        "prompt_tokens": len(group.prompt_ids),
        "prompt": shortened(group.prompt_ids.tolist(), decode, PROMPT_CHARS),
        "responses": [_response(scored[place], decode) for place in picked],
    }


def _response(response: Response, decode: Decode) -> Json:
    return {
        "reward": response.reward,
        "status": response.status,
        "reason": response.reason[:200],
        "tokens": len(response.ids),
        "finish": response.finish_reason,
        "versions": [[span.version, span.start, span.end] for span in response.version_spans[:8]],
        "text": shortened(response.ids.tolist(), decode, RESPONSE_CHARS),
    }


def shortened(ids: Sequence[int], decode: Decode, most: int) -> str:
    """The text of some tokens, without its middle where it is longer than `most` characters."""
    if len(ids) > 2 * _TOKENS:
        head, tail = decode(ids[:_TOKENS]), decode(ids[-_TOKENS:])
    else:
        text = decode(ids)
        if len(text) <= most:
            return text
        head = tail = text
    return f"{head[: most // 2]}\n[... shortened ...]\n{tail[-(most - most // 2) :]}"


class KeptSamples:
    """Makes and keeps the samples of a run from `resume_at` on.

    Args:
        decode: token ids to text.
    """

    def __init__(self, recipe: Recipe, out: Path, resume_at: int, decode: Decode) -> None:
        self._count, self._seed = recipe.telemetry.samples, recipe.seed
        self._decode = decode
        self._journal: Journal | None = None
        try:
            self._journal = Journal(out / FILE, keep=lambda record: int(record.get("step", 0)) <= resume_at)
        except (OSError, ValueError, TypeError, OverflowError) as error:
            self._off(error)

    @classmethod
    def of(cls, recipe: Recipe, out: Path, resume_at: int, model: Path) -> "KeptSamples | None":
        """As the recipe says; None if it keeps none, or if the model's tokenizer cannot be read."""
        if recipe.telemetry.samples == 0:
            return None
        try:
            tokenizer = Chat.open(model).tokenizer
        except DataError as error:
            log.warning("no samples are kept", error=str(error))
            return None
        return cls(recipe, out, resume_at, lambda ids: tokenizer.decode(list(ids), skip_special_tokens=False))

    def make(self, batch: Batch, advantages: Sequence[float]) -> list[Json]:
        """The lines of a step."""
        chosen = choose(batch.groups, self._count, self._seed, batch.step)
        return [spread(batch, advantages), *(describe(batch.step, why, each, self._decode) for why, each in chosen)]

    def write(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Keep the lines of a step that is done."""
        if self._journal is not None:
            try:
                self._journal.append(lines)
            except OSError as error:
                self._off(error)

    def _off(self, error: Exception) -> None:
        self._journal = None
        log.warning("samples cannot be written; off until the next start", error=str(error))
