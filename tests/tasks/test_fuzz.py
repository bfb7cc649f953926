"""Seeded noise through every route of `score`: a score in [0, 1] or a reason, never an exception.

`python tests/tasks/test_fuzz.py 500000 SEED` runs the long one and prints what it saw.
"""

import random
import signal
import sys
from collections import Counter
from types import FrameType
from typing import Any, Literal

import pytest

from golongrl.tasks import TASKS, score
from golongrl.tasks.gold import gold_response
from golongrl.tasks.registry import LONGBENCH_PRO

ROUTES = [(t.data_source, t.data_source) for t in TASKS if t.data_source] + [
    (LONGBENCH_PRO, name) for t in TASKS for name in t.subtasks
]
_PIECES = (
    '<think> </think> [Answer] [答案] **[Answer]** <answer> </answer> ```json ``` {"data": '
    '[["a",1]]} [ ] { } ( ) \\boxed{ } \\frac{1}{2} \\text{ million} \\text{cm} \\sqrt '
    "2021-03-04 10-20 10–20 1.2e3 115\\,000 9^{9^{9}} ½ 北京 12个 百分之五十 三千万 4 5 -7 0.00000123 "
    "% $ € km/h m^2 The_correct_answer_is (A) (B) or and or_(C) B, March 4, 2021 12:30 "
    "twelve hundred x y = + * ^ _ \\ . , 。 \0 \ud800 ￥ ﷽ 𝟙𝟚 ² ⁻¹ "
    "\\begin{pmatrix}1&2\\end{pmatrix} \\pi \\infty \\{1,2\\} \\% \\times10^{5} 1e400 "
    "1e-400 0 00 nan inf ! \\binom{5}{2} \\log \\sin \\le \\in "
)
PIECES = _PIECES.split()
DEADLINE_S = 10  # an item over it is the pool's business; it is only counted here


class DeadlineError(BaseException):
    """Not an error of the metric: the caller keeps deadlines. No Exception, which libraries catch and wrap."""


def text(rng: random.Random, most: int) -> str:
    parts = []
    for _ in range(rng.randrange(most)):
        piece = (
            rng.choice(PIECES).replace("_", " ")
            if rng.random() < 0.8
            else chr(rng.choice((rng.randrange(128), rng.randrange(0x3000), rng.randrange(0x11000))))
        )
        parts.append(piece + rng.choice(("", "", " ", "\n")))
    return "".join(parts)


def truth(rng: random.Random) -> Any:
    label: Any = text(rng, 6)
    golds = [text(rng, 4) for _ in range(rng.randrange(4))]
    mapping: dict[str, Any] = {
        "doc_ids": golds,
        "golden_label": label,
        "summary": rng.choice(("English", "Chinese", "")),
    }
    match rng.randrange(12):
        case 0:
            return label
        case 1:
            return rng.choice((0, -1, 3.5, 10**30, float("nan"), float("inf"), True, None, [], {}, [label], b"x"))
        case 2:
            mapping[rng.choice(tuple(mapping))] = rng.choice((None, 3, [], {}, [None], golds))
        case 3:
            return [mapping]
        case 4:
            mapping["golden_label"] = rng.choice(('{"data": [["a", 1]]}', "B", "5", "4 million", "2021-03-04"))
    return mapping


def response(rng: random.Random, source: str, reward_mode: str, gold: Any) -> str:
    """Noise, or the gold's own response with a little of it."""
    body = text(rng, 12)
    if rng.random() < 0.4:
        return gold_response(source, gold, {"reward_mode": reward_mode}) + (body if rng.random() < 0.3 else "")
    if rng.random() < 0.4:
        body = f"\\boxed{{{body}}}"
    return rng.choice(("", "<think>t</think>", "</think>", "</think>")) + body


def fuzz(count: int, seed: int, mode: Literal["compat", "strict"], *, deadlines: bool = False) -> Counter[str]:
    """What `count` inputs ended in. Raises AssertionError or the metric's exception with the input beside it."""
    rng = random.Random(seed)
    seen: Counter[str] = Counter()
    for _ in range(count):
        source, reward_mode = rng.choice(ROUTES)
        gold = truth(rng)
        answer = response(rng, source, reward_mode, gold)
        try:
            if deadlines:
                signal.alarm(DEADLINE_S)
            outcome = score(source, answer, gold, {"reward_mode": reward_mode}, mode)
        except DeadlineError:
            seen["deadline"] += 1
            continue
        except BaseException as error:
            error.add_note(f"input: {source!r}, {answer!r}, {gold!r}, {reward_mode!r}, {mode}")
            raise
        finally:
            if deadlines:
                signal.alarm(0)
        assert (outcome.score is None) == (outcome.status == "unscored")
        assert outcome.score is None or 0.0 <= outcome.score <= 1.0
        assert outcome.score is not None or outcome.reason
        seen[f"{outcome.status} {'above 0' if outcome.score else ''}".strip()] += 1
        if outcome.reason.startswith("metric crashed"):
            seen["crashes"] += 1
    return seen


@pytest.mark.parametrize("mode", ["compat", "strict"])
def test_noise(mode: Literal["compat", "strict"]) -> None:
    seen = fuzz(3_000, 1, mode)
    assert seen["scored above 0"] > 20


def _deadline(_number: int, _frame: FrameType | None) -> None:
    raise DeadlineError


@pytest.mark.full
@pytest.mark.parametrize("mode", ["compat", "strict"])
def test_much_noise(mode: Literal["compat", "strict"]) -> None:
    before = signal.signal(signal.SIGALRM, _deadline)
    try:
        fuzz(500_000, 2, mode, deadlines=True)
    finally:
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, _deadline)
    for mode_ in ("strict", "compat"):
        print(mode_, dict(fuzz(int(sys.argv[1]), int(sys.argv[2]), mode_, deadlines=True)), flush=True)  # type: ignore[arg-type]
