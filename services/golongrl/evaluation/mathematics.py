"""Mathematical equality of a reply with a gold answer, through the rules that training uses.

`strict` (and `official`): the strict math rules on the text behind the thought, where the last box counts. `compat`:
math-verify on the reply as it came, which reads all its boxes together; of a long reply it sees the end and the boxes
before that, because it takes quadratic time. An answer too large or too deeply nested
to compare is wrong; a gold that cannot be compared is an error of the data.
"""

import re
from typing import Final

from golongrl.evaluation.errors import EvaluationError
from golongrl.evaluation.kinds import Mode
from golongrl.tasks import math_answer, math_strict
from golongrl.tasks.outcome import BadAnswerError, UnscorableError
from golongrl.tasks.scoring import CRASHES

# math-verify needs about a second for so many characters full of numbers.
COMPAT_WINDOW: Final = 8_000
_MOST_BOXES: Final = 100
_BOX: Final = re.compile(r"\\boxed\{(?:[^{}]|\{[^{}]*\}){0,200}\}")


def math_equal(gold: str, text: str, mode: Mode) -> float:
    """1 if the answer in `text` equals the gold, else 0.

    Raises:
        EvaluationError: nothing can be compared with the gold.
    """
    try:
        if mode == "compat":
            seen = _shortened(text)
            return math_answer.equal([gold], seen, window=len(seen))
        return math_strict.equal([gold], text)
    except BadAnswerError:
        return 0.0
    except (UnscorableError, *CRASHES) as error:
        if _comparable(gold):
            return 0.0
        raise EvaluationError(f"the gold answer {gold[:80]!r} cannot be compared: {error}") from error


def _shortened(text: str) -> str:
    """The end of a long text, behind the different boxes that stand before it."""
    if len(text) <= COMPAT_WINDOW:
        return text
    head, tail = text[:-COMPAT_WINDOW], text[-COMPAT_WINDOW:]
    boxes = list(dict.fromkeys(_BOX.findall(head)))
    return " ".join([*boxes[-_MOST_BOXES:], tail])


def _comparable(gold: str) -> bool:
    try:
        return math_answer.comparable([gold])
    except UnscorableError:
        return False
