"""What math-verify would hang on is refused before it is parsed or evaluated: power towers, factorials, deep nesting.

Parsed answers are lazy: `9^{9^{9}}` is a small tree until something evaluates it. Everything else is left to the
caller's deadline in compat. Strict bounds the rest too, so that it needs no deadline: what is evaluated while it is
parsed (`refuse_evaluation`), the digits of every number, and what math-verify may simplify or solve. A gold answer is
bounded in both modes (`refuse_costly_gold`), because each of its row's answers would pay for it.
"""

import math
import re
from itertools import islice
from typing import TYPE_CHECKING, Any

from golongrl.tasks.outcome import TooLargeError

if TYPE_CHECKING:
    from sympy import Basic

# Numbers of more digits are not evaluated: 2^{1000000} (301,030 digits) takes 0.1 s, ten times that already seconds.
# A sum, a root or a sine of such numbers takes far longer.
COMPAT, STRICT = 1_000_000, 20_000
# (x + 1)^{1000} still expands in time when it is compared; powers of sums with more terms do not.
MAX_EXPANDED = 1_001
MAX_SUMMED = 1_000  # terms of a sum or factors of a product, each of which is evaluated
LONGEST_GOLD = 2_000  # characters; answers are read from 500, and 5,000 can take the LaTeX parser half a minute
MAX_GOLD_PARTS = 200  # of its expression; a set of 300 numbers takes seconds to compare with anything
_TOWER = re.compile(r"\d\s?(?:\^|\*\*)\s?(\d{1,9})\s?(?:\^|\*\*)\s?(\d{1,9})")  # no LaTeX; strict compares it as a text
# Fractions within fractions are powers of -1, and each level doubles the time to evaluate them.
MAX_NESTED_POWERS = 10
# The LaTeX grammar needs time exponential in directly nested braces (15: 4 s) and cubic in other brackets (40: 5 s).
MAX_BARE_BRACES = 14
MAX_BRACKETS = 40
STRICT_BRACKETS = 12  # half a second; no answer that a person would write has as many
# What is evaluated while it is parsed; there strict wants small whole exponents, multiplied at most this.
_EVALUATED = re.compile(
    r"\\(?:binom|dbinom|tbinom|choose|gcd|lcm|lfloor|lceil|floor|ceil|det|[bp]?mod|Gamma|zeta|max|min|operatorname|"
    r"begin)(?![a-zA-Z])|!|\\gcd|\\lcm"
)
_EXPONENT = re.compile(r"\^\s{0,9}(?:\{\s{0,9}[+-]?(\d{1,3})\s{0,9}\}|(\d))?")
MAX_EXPONENTS = 2_000
_LONG_EXPONENT = re.compile(r"\^\s{0,9}\{?\s{0,9}[+-]?\d{5}")
_LONG_ARGUMENT = re.compile(
    r"(?:binom|choose|Gamma|zeta|phi)\s{0,9}[{(]?\s{0,9}\d{5}|\d{5}\s{0,9}[})]?\s{0,9}(?:!|\\choose)"
)
MAX_OPERATIONS = 60  # of what math-verify may simplify, and of a relation, which it solves
MAX_DEGREE = 4  # of a relation: roots of higher polynomials take seconds each
# And in exponents of exponents without braces ("x^x^x": 12 take 4 s, 20 over a minute).
_EXPONENT_CHAIN = re.compile(r"(?:\^\s?(?:\d+|\\[a-z]+|\w)\s?){9}")
_HUGE_BINOMIAL = re.compile(r"binom\s*\{?\s*\d{7}")  # evaluated while it is parsed


def refuse_nesting(tail: str, most: int = MAX_BRACKETS) -> None:
    """Raise TooLargeError if the LaTeX nests too deeply to parse, in more than `most` brackets."""
    depth = bare = 0
    stack: list[bool] = []
    for i, character in enumerate(tail):
        if character in "([{":
            # A brace that opens a command's argument or an exponent is cheap.
            is_bare = character == "{" and not (i and (tail[i - 1].isalpha() or tail[i - 1] in "^_}]"))
            stack.append(is_bare)
            depth, bare = depth + 1, bare + is_bare
            if depth > most or bare > MAX_BARE_BRACES:
                raise TooLargeError("answer is nested too deeply to parse")
        elif character in ")]}" and stack:
            depth, bare = depth - 1, bare - stack.pop()
    if _EXPONENT_CHAIN.search(tail):
        raise TooLargeError("answer is nested too deeply to parse")
    if _HUGE_BINOMIAL.search(tail):
        raise TooLargeError("answer is too large to evaluate: a binomial coefficient")


def refuse_costly_gold(gold: str) -> None:
    """Raise TooLargeError if parsing the gold answer would take long, in either mode."""
    if len(gold) > LONGEST_GOLD:
        raise TooLargeError(f"answer is longer than {LONGEST_GOLD} characters")
    refuse_nesting(gold)
    tower = _TOWER.search(gold)
    if tower is not None and int(tower[2]) * math.log10(max(1, int(tower[1]))) > math.log10(STRICT):
        raise TooLargeError("answer is too large to evaluate: a power of a power")
    if _EVALUATED.search(gold):  # elsewhere a long number stays a small tree, which `refuse_huge` judges
        refuse_evaluation(gold)


def refuse_evaluation(tail: str) -> None:
    """Raise TooLargeError if parsing the LaTeX would evaluate large numbers."""
    if _LONG_EXPONENT.search(tail) or _LONG_ARGUMENT.search(tail):
        raise TooLargeError("answer is too large to evaluate: a number of five digits is too many in its place")
    if _EVALUATED.search(tail) is None:
        return
    total = 1
    for found in _EXPONENT.finditer(tail):
        digits = found[1] or found[2]
        total *= int(digits) if digits else MAX_EXPONENTS + 1
    if total > MAX_EXPONENTS:
        raise TooLargeError("answer is too large to evaluate: a function of large powers")


def refuse_size(expression: object, most: int) -> None:
    """Raise TooLargeError if the parsed expression has more parts than `most`."""
    from sympy import Basic, preorder_traversal

    if isinstance(expression, Basic) and sum(1 for _ in islice(preorder_traversal(expression), most + 1)) > most:
        raise TooLargeError("answer is too complex to compare")


def refuse_simplifying(expression: object) -> None:
    """Raise TooLargeError if math-verify could need long to simplify or to solve the parsed expression."""
    from sympy import Basic, Pow
    from sympy.core.relational import Relational

    if not isinstance(expression, Basic):
        return
    refuse_size(expression, MAX_OPERATIONS)
    related = expression.has(Relational)
    degree = max((abs(power.exp) for power in expression.atoms(Pow) if power.exp.is_Integer), default=0)
    if related and degree > MAX_DEGREE:
        raise TooLargeError("answer is too complex to compare")


def refuse_huge(expression: object, max_digits: int) -> None:
    """Raise TooLargeError if comparing the parsed expression would evaluate too large a number."""
    from sympy import Basic

    if not isinstance(expression, Basic):
        return
    if _nested_powers(expression) > MAX_NESTED_POWERS:
        raise TooLargeError("answer is nested too deeply to evaluate")
    if _log10(expression) > max_digits:
        raise TooLargeError(f"answer is too large to evaluate: more than {max_digits} digits")


def _nested_powers(expression: "Basic") -> int:
    below = max((_nested_powers(argument) for argument in expression.args if hasattr(argument, "args")), default=0)
    return below + bool(getattr(expression, "is_Pow", False))


def _log10(expression: "Basic") -> float:
    """An upper estimate, at least 0, of log10 of the largest number met in evaluating the expression; symbols count as
    1.
    """
    from sympy import Number, Pow, Product, Sum, exp, factorial, gamma

    if isinstance(expression, Number):
        return _log10_of_number(expression)
    inner = [_log10(argument) for argument in expression.args if hasattr(argument, "args")]
    if isinstance(expression, Pow):
        base, exponent = inner
        if expression.base.is_Add and expression.base.free_symbols and _expanded(expression) > MAX_EXPANDED:
            return math.inf
        return max(base, exponent, base * _ten_to(exponent))
    if isinstance(expression, Sum | Product) and any(number > math.log10(MAX_SUMMED) for number in inner[1:]):
        return math.inf
    if isinstance(expression, exp):
        return max(inner[0], _ten_to(inner[0]))
    if isinstance(expression, factorial | gamma):  # a binomial coefficient of roots is one of gamma functions
        return max(inner[0], inner[0] * _ten_to(inner[0]))
    return sum(inner)


def _expanded(power: Any) -> float:
    """How many terms a power of a sum has, at least."""
    exponent, terms = abs(power.exp), len(power.base.args)
    if not exponent.is_Integer:
        return math.inf if exponent.is_number and exponent > MAX_EXPANDED else 0
    return math.comb(min(int(exponent), MAX_EXPANDED) + terms - 1, terms - 1)


def _log10_of_number(number: Any) -> float:
    if not number.is_finite:  # nan has no answer to that
        return 0.0
    largest = max(abs(number.p), number.q) if number.is_Rational else math.ceil(abs(number))
    return math.log10(max(1, largest))


def _ten_to(power: float) -> float:
    return 10.0**power if power < 300 else math.inf
