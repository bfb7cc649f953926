"""What math-verify would hang on is refused before it is parsed or evaluated: power towers, factorials, deep nesting.

Parsed answers are lazy: `9^{9^{9}}` is a small tree until something evaluates it. Everything else is left to the
caller's deadline.
"""

import math
import re
from typing import TYPE_CHECKING, Any

from golongrl.tasks.outcome import TooLargeError

if TYPE_CHECKING:
    from sympy import Basic

# Numbers of more digits are not evaluated: 2^{1000000} (301,030 digits) takes 0.1 s, ten times that already seconds.
MAX_DIGITS = 1_000_000
# (x + 1)^{1000} still expands in time when it is compared; powers of sums beyond that do not.
MAX_LOG10_OF_SUM_POWER = 3.0
# Fractions within fractions are powers of -1, and each level doubles the time to evaluate them.
MAX_NESTED_POWERS = 10
# The LaTeX grammar needs time exponential in directly nested braces (15: 4 s) and cubic in other brackets (40: 5 s).
MAX_BARE_BRACES = 14
MAX_BRACKETS = 40
_HUGE_BINOMIAL = re.compile(r"binom\s*\{?\s*\d{7}")  # evaluated while it is parsed


def refuse_nesting(tail: str) -> None:
    """Raise TooLargeError if the LaTeX nests too deeply to parse."""
    depth = bare = 0
    stack: list[bool] = []
    for i, character in enumerate(tail):
        if character in "([{":
            # A brace that opens a command's argument or an exponent is cheap.
            is_bare = character == "{" and not (i and (tail[i - 1].isalpha() or tail[i - 1] in "^_}]"))
            stack.append(is_bare)
            depth, bare = depth + 1, bare + is_bare
            if depth > MAX_BRACKETS or bare > MAX_BARE_BRACES:
                raise TooLargeError("answer is nested too deeply to parse")
        elif character in ")]}" and stack:
            depth, bare = depth - 1, bare - stack.pop()
    if _HUGE_BINOMIAL.search(tail):
        raise TooLargeError("answer is too large to evaluate: a binomial coefficient")


def refuse_huge(expression: object) -> None:
    """Raise TooLargeError if comparing the parsed expression would evaluate too large a number."""
    from sympy import Basic

    if not isinstance(expression, Basic):
        return
    if _nested_powers(expression) > MAX_NESTED_POWERS:
        raise TooLargeError("answer is nested too deeply to evaluate")
    if _log10(expression) > MAX_DIGITS:
        raise TooLargeError(f"answer is too large to evaluate: more than {MAX_DIGITS} digits")


def _nested_powers(expression: "Basic") -> int:
    below = max((_nested_powers(argument) for argument in expression.args if hasattr(argument, "args")), default=0)
    return below + bool(getattr(expression, "is_Pow", False))


def _log10(expression: "Basic") -> float:
    """An upper estimate, at least 0, of log10 of the largest number met in evaluating the expression; symbols count as
    1.
    """
    from sympy import Number, Pow, exp, factorial

    if isinstance(expression, Number):
        return _log10_of_number(expression)
    inner = [_log10(argument) for argument in expression.args if hasattr(argument, "args")]
    if isinstance(expression, Pow):
        base, exponent = inner
        if expression.base.is_Add and expression.base.free_symbols and exponent > MAX_LOG10_OF_SUM_POWER:
            return math.inf
        return max(base, exponent, base * _ten_to(exponent))
    if isinstance(expression, exp):
        return max(inner[0], _ten_to(inner[0]))
    if isinstance(expression, factorial):
        return max(inner[0], inner[0] * _ten_to(inner[0]))
    return sum(inner)


def _log10_of_number(number: Any) -> float:
    if not number.is_finite:  # nan has no answer to that
        return 0.0
    largest = max(abs(number.p), number.q) if number.is_Rational else math.ceil(abs(number))
    return math.log10(max(1, largest))


def _ten_to(power: float) -> float:
    return 10.0**power if power < 300 else math.inf
