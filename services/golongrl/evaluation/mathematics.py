"""Mathematical equality of a reply with a gold answer, through the rules that training uses.

`strict` (and `official`): the strict math rules on the text behind the thought, where the last box counts. `compat`:
math-verify on the whole reply as it came, which reads all its boxes together. An answer too large or too deeply nested
to compare is wrong; a gold that cannot be compared is an error of the data.
"""

from golongrl.evaluation.errors import EvaluationError
from golongrl.evaluation.kinds import Mode
from golongrl.tasks import math_answer, math_strict
from golongrl.tasks.outcome import BadAnswerError, UnscorableError
from golongrl.tasks.scoring import CRASHES


def math_equal(gold: str, text: str, mode: Mode) -> float:
    """1 if the answer in `text` equals the gold, else 0.

    Raises:
        EvaluationError: nothing can be compared with the gold.
    """
    try:
        if mode == "compat":
            return math_answer.equal([gold], text, window=len(text))
        return math_strict.equal([gold], text)
    except BadAnswerError:
        return 0.0
    except (UnscorableError, *CRASHES) as error:
        if _comparable(gold):
            return 0.0
        raise EvaluationError(f"the gold answer {gold[:80]!r} cannot be compared: {error}") from error


def _comparable(gold: str) -> bool:
    try:
        return math_answer.comparable([gold])
    except UnscorableError:
        return False
