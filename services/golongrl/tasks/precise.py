"""Numbers that math-verify calls equal and that differ all the same.

It compares decimals after rounding both to six places, and other numbers after cutting what is tiny to zero, so that
any two small numbers are equal to it. Here the two are compared relative to their size.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

# Six significant digits, what math-verify asks of a number near 1, where a decimal takes part; else all of them.
DECIMAL_GAP = 5e-6
EXACT_GAP = 1e-12
_DIGITS = 40
# A point for letters: no small formula vanishes there by chance.
_PRIMES = (10007, 10037, 10067, 10079, 10099, 10133, 10151, 10163)


def differ(gold: Any, answer: Any) -> bool:
    """Whether two parsed expressions that math-verify found equal are different numbers, or sets of them."""
    from sympy import Basic, MatrixBase

    if isinstance(gold, MatrixBase) and isinstance(answer, MatrixBase):
        return gold.shape == answer.shape and any(differ(a, b) for a, b in zip(gold.flat(), answer.flat(), strict=True))
    if not (isinstance(gold, Basic) and isinstance(answer, Basic)):
        return False
    parts, others = _members(gold), _members(answer)
    if parts is not None and others is not None:
        return any(all(differ(a, b) for b in others) for a in parts) or any(
            all(differ(a, b) for a in parts) for b in others
        )
    return _numbers_differ(gold, answer)


def _members(expression: Any) -> Sequence[Any] | None:
    from sympy import FiniteSet, Interval, Tuple

    if isinstance(expression, FiniteSet | Tuple):
        return tuple(expression.args)
    return tuple(expression.args[:2]) if isinstance(expression, Interval) else None


def _numbers_differ(gold: Any, answer: Any) -> bool:
    from sympy import Float

    exact = not (gold.has(Float) or answer.has(Float))
    values = [list(_values(one)) for one in (gold, answer)]
    if not all(values):
        return False
    gap = EXACT_GAP if exact else DECIMAL_GAP
    return all(abs(a - b) > gap * max(abs(a), abs(b)) for a, b in product(*values))


def _values(expression: Any) -> Iterator[Any]:
    """The number that the expression is at a fixed point, with and without a percent sign; none if it is no number."""
    from sympy import Eq, Rational, UnevaluatedExpr
    from sympy.core.expr import Expr

    if isinstance(expression, Eq):
        expression = expression.rhs
    if not isinstance(expression, Expr):
        return
    percent = UnevaluatedExpr(Rational(1, 100))
    forms = [expression, *([expression / percent] if expression.has(percent) else [])]
    letters = sorted(expression.free_symbols, key=str)
    point = {letter: Rational(_PRIMES[i % len(_PRIMES)] + i, 7919) for i, letter in enumerate(letters)}
    for form in forms:
        try:
            value = form.subs(point).doit().evalf(_DIGITS)
        except (ArithmeticError, AttributeError, TypeError, ValueError, RecursionError, NotImplementedError):
            return
        if value.is_number and value.is_finite:
            yield value
