"""Mathematical equality by math-verify, with the inputs that would hang it refused.

math-verify parses and compares without its own time-out, which needs SIGALRM and so silently fails outside the main
thread. What is known to explode (power towers, factorials, deep nesting) is refused before it is evaluated; everything
else is left to the caller's deadline. Parsed answers are lazy: `9^{9^{9}}` is a small tree until something evaluates
it.
"""

import math
import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

from golongrl.tasks.outcome import UnscorableError

if TYPE_CHECKING:
    from sympy import Basic

TAIL = 500  # characters of the text that are searched for an answer
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

# Two different fractions of at most six digits differ by 1e-12 or more, far above math-verify's numeric tolerance, so
# that for them its verdict is that of exact arithmetic.
_NUMBER = re.compile(r"(-?)(?:\\[dt]?frac\{(\d{1,6})\}\{(\d{1,6})\}|(\d{1,6})(?:/(\d{1,6}))?)")
_BOXED_NUMBER = re.compile(rf"\\boxed\{{({_NUMBER.pattern})\}}")
# What, standing before or after the only box, could make math-verify read something else.
_BEFORE = re.compile(r"\\boxed|(?i:final answer)")
_AFTER = re.compile(r"[\]{}$\\]|(?i:final answer)")


def equal(golds: Sequence[str], text: str) -> float:
    """1 if the answer in the last 500 characters of `text` equals any of `golds`, as a string or mathematically.

    Raises UnscorableError if the answer is too large to evaluate or nested too deeply to parse.
    """
    tail = text[-TAIL:]
    answer = _plain_answer(tail)
    if answer is not None:
        numbers = [_fraction(_NUMBER.fullmatch(gold)) for gold in golds]
        if answer in numbers:
            return 1.0
        if None not in numbers:
            return 0.0
    _refuse_nesting(tail)
    parsed = _parse(tail)
    if len(parsed) < 2:
        return 0.0
    if parsed[1] in golds:
        return 1.0
    _refuse_huge(parsed[0])
    return float(any(_verify(gold, parsed) for gold in golds))


def _fraction(found: re.Match[str] | None) -> Fraction | None:
    if found is None:
        return None
    sign, over, under, whole, divisor = found.groups()[-5:]
    denominator = int(under or divisor or 1)
    return Fraction(int(sign + (over or whole)), denominator) if denominator else None


def _plain_answer(tail: str) -> Fraction | None:
    """The number, if the tail has exactly one box and that holds an integer or a fraction of integers; else None.

    This spares plain answers the LaTeX parser, which is a hundred times slower, and decides nothing the two could
    differ on.
    """
    boxed = _BOXED_NUMBER.search(tail)
    if boxed is None:
        return None
    before, after = tail[: boxed.start()], tail[boxed.end() :]
    if before.endswith("$") and after.startswith("$") and not before.endswith("\\$"):
        before, after = before[:-1], after[1:]
        if re.search(r"[$\\\[]", before):
            return None
    if _BEFORE.search(before) or _AFTER.search(after):
        return None
    return _fraction(boxed)


@lru_cache(maxsize=1)
def _library() -> ModuleType:
    """math_verify, made ready on first use: it loads SymPy and warns once per process that it keeps no deadline.

    The LaTeX parser generated for ANTLR 4.9.3, the runtime that OmegaConf pins, lacks one accessor which its converter
    calls for every percentage and matrix; without it those answers silently fail to parse. It is the only difference to
    the parsers for newer runtimes.
    """
    import logging

    import math_verify
    from latex2sympy2_extended.antlr_parser import PSParser

    if not hasattr(PSParser.AtomContext, "FUNC_GAMMA"):
        PSParser.AtomContext.FUNC_GAMMA = lambda atom: atom.getToken(PSParser.FUNC_GAMMA, 0)
    for name in ("math_verify.parser", "math_verify.grader"):
        logging.getLogger(name).setLevel(logging.ERROR)
    library: ModuleType = math_verify
    return library


def _parse(text: str) -> list[Any]:
    found: list[Any] = _library().parse(text, parsing_timeout=None)
    return found


@lru_cache(maxsize=1024)  # a group's responses share their gold
def _gold(gold: str) -> tuple[Any, ...]:
    try:
        _refuse_nesting(gold)
        parsed = _parse(f"\\boxed{{{gold}}}")
        if parsed:
            _refuse_huge(parsed[0])
    except UnscorableError as error:
        raise UnscorableError(f"invalid ground truth: the golden {error}") from None
    return tuple(parsed)


def _verify(gold: str, parsed: list[Any]) -> bool:
    return bool(_library().verify(list(_gold(gold)), parsed, timeout_seconds=None))


def _refuse_nesting(tail: str) -> None:
    depth = bare = 0
    stack: list[bool] = []
    for i, character in enumerate(tail):
        if character in "([{":
            # A brace that opens a command's argument or an exponent is cheap.
            is_bare = character == "{" and not (i and (tail[i - 1].isalpha() or tail[i - 1] in "^_}]"))
            stack.append(is_bare)
            depth, bare = depth + 1, bare + is_bare
            if depth > MAX_BRACKETS or bare > MAX_BARE_BRACES:
                raise UnscorableError("answer is nested too deeply to parse")
        elif character in ")]}" and stack:
            depth, bare = depth - 1, bare - stack.pop()
    if _HUGE_BINOMIAL.search(tail):
        raise UnscorableError("answer is too large to evaluate: a binomial coefficient")


def _refuse_huge(expression: object) -> None:
    from sympy import Basic

    if not isinstance(expression, Basic):
        return
    if _nested_powers(expression) > MAX_NESTED_POWERS:
        raise UnscorableError("answer is nested too deeply to evaluate")
    if _log10(expression) > MAX_DIGITS:
        raise UnscorableError(f"answer is too large to evaluate: more than {MAX_DIGITS} digits")


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
    if number.is_finite is False:
        return 0.0
    largest = max(abs(number.p), number.q) if number.is_Rational else math.ceil(abs(number))
    return math.log10(max(1, largest))


def _ten_to(power: float) -> float:
    return 10.0**power if power < 300 else math.inf
