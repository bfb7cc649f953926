"""Whether two parsed expressions are equal, decided by their values at fixed points, in bounded time.

math-verify compares decimals after rounding both to six places, and other numbers after cutting what is tiny to zero,
so that any two small numbers are equal to it; where that leaves them unequal it simplifies their difference, for which
there is no bound. Here two expressions are evaluated to 40 digits, never simplified: numbers as they are, formulas at
two points at which no small formula vanishes by chance. `verdict` answers None for what has no such value (relations,
words, infinity); only that is for math-verify.
"""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import product
from typing import Any

# Six significant digits, what math-verify asks of a number near 1, where one side is a decimal of as many; where a
# decimal is a part of either, what its binary form loses; else all of them.
DECIMAL_GAP = 5e-6
FLOAT_GAP = 1e-12
EXACT_GAP = 1e-25
_PLACES = 6  # at which math-verify rounds, where one side is a decimal
_DIGITS = 40
_PRIMES = (10007, 10037, 10067, 10079, 10099, 10133, 10151, 10163)
# The second point has letters below zero, where sqrt(x^2) and |x| are not x.
_SIGNS = (1, -1)


def verdict(gold: Any, answer: Any) -> bool | None:
    """Whether the answer equals the gold; None where their values do not tell."""
    from sympy import Basic, Eq, MatrixBase
    from sympy.core.expr import Expr

    if isinstance(gold, MatrixBase) and isinstance(answer, MatrixBase):
        if gold.shape != answer.shape:
            return False
        return _all([verdict(a, b) for a, b in zip(gold.flat(), answer.flat(), strict=True)])
    if not (isinstance(gold, Basic) and isinstance(answer, Basic)):
        return None
    parts, others = _members(gold), _members(answer)
    if parts is not None and others is not None:
        unmatched = any(all(verdict(a, b) is False for b in others) for a in parts)
        return False if unmatched or any(all(verdict(a, b) is False for a in parts) for b in others) else None
    if _is_lazy(answer) or _is_lazy(gold):
        return bool(gold.as_dummy() == answer.as_dummy())
    if isinstance(gold, Eq) and isinstance(answer, Eq) and gold.lhs != answer.lhs:
        return None
    if isinstance(gold, Eq) or isinstance(answer, Eq):  # which letter is named counts: that is for math-verify
        return False if _equal(*(one.rhs if isinstance(one, Eq) else one for one in (gold, answer))) is False else None
    if not (isinstance(gold, Expr) and isinstance(answer, Expr)) or gold.is_Symbol or answer.is_Symbol:
        return None
    return _equal(gold, answer)


def _all(found: Sequence[bool | None]) -> bool | None:
    return False if False in found else None if None in found else True


def _is_lazy(expression: Any) -> bool:
    """Whether it is left to be summed, integrated or taken to a limit; then it equals the same expression alone."""
    from sympy import Derivative, Integral, Limit, Product, Sum

    return bool(expression.has(Sum, Product, Integral, Limit, Derivative))


def _members(expression: Any) -> Sequence[Any] | None:
    from sympy import FiniteSet, Interval, Tuple

    if isinstance(expression, FiniteSet | Tuple):
        return tuple(expression.args)
    return tuple(expression.args[:2]) if isinstance(expression, Interval) else None


def _equal(gold: Any, answer: Any) -> bool | None:
    from sympy import Float, log
    from sympy.core.expr import Expr

    if not (isinstance(gold, Expr) and isinstance(answer, Expr)):
        return None
    decimal = gold.has(Float) or answer.has(Float)
    rounded = any(isinstance(one, Float) and _significant(one) >= _PLACES for one in (gold, answer))
    letters = sorted({str(one) for one in gold.free_symbols | answer.free_symbols} - {"i"})
    found: list[bool | None] = []
    for sign in _SIGNS[: 2 if letters else 1]:
        values = [list(_values(one, letters, sign)) for one in (gold, answer)]
        if not all(values):
            return None
        pairs = list(product(*values))
        if not any(abs(a - b) <= DECIMAL_GAP * max(abs(a), abs(b)) for a, b in pairs):
            return False
        if rounded and not letters:
            found.append(any(_round(a) == _round(b) for a, b in pairs))
        else:
            gap = FLOAT_GAP if decimal else EXACT_GAP
            found.append(any(abs(a - b) <= gap * max(abs(a), abs(b)) for a, b in pairs))
    if all(found) and not decimal and not letters and (size := max(abs(one) for pair in pairs for one in pair)) > 1e20:
        digits = _DIGITS + int(log(size, 10).evalf())  # the last ones of a long number count
        values = [list(_values(one, letters, 1, digits)) for one in (gold, answer)]
        return any(abs(a - b) < 1e-9 for a, b in product(*values))
    return _all(found)


def _significant(number: Any) -> int:
    """The digits of a decimal as it was written, near enough: "0.1" is no rounded value of anything."""
    return len(Decimal(repr(float(number))).normalize().as_tuple().digits)


def _round(value: Any) -> tuple[Any, ...]:
    return tuple(part.round(_PLACES) for part in value.as_real_imag())


def _values(expression: Any, letters: Sequence[str], sign: int, digits: int = _DIGITS) -> Iterator[Any]:
    """The number that the expression is at a point, with and without a percent sign; none if it is no number. "i" is
    the imaginary unit, which the parser takes for a letter.
    """
    from sympy import I, Rational, UnevaluatedExpr

    percent = UnevaluatedExpr(Rational(1, 100))
    named = {
        letter: Rational(_PRIMES[i % len(_PRIMES)] + i, 7919) * (sign if i % 2 == 0 else 1)
        for i, letter in enumerate(letters)
    } | {"i": I}
    point = {symbol: named[str(symbol)] for symbol in expression.free_symbols}
    for form in (expression, *([expression / percent] if expression.has(percent) else [])):
        try:
            value = _flat(form).evalf(digits, subs=point)  # `subs` and `doit` would evaluate, which has no bound
        except (ArithmeticError, AttributeError, TypeError, ValueError, RecursionError, NotImplementedError):
            return
        if value.is_number and value.is_finite and (cleaned := _without_noise(value)) is not None:
            yield cleaned


def _flat(expression: Any) -> Any:
    """The expression without products within products: `evalf` takes each factor twice, so 60 levels ("1:2:3:...") for
    ever.
    """
    from sympy import Mul

    if not isinstance(expression, Mul):
        return expression
    factors = [factor for one in map(_flat, expression.args) for factor in (one.args if one.is_Mul else [one])]
    return Mul(*factors, evaluate=False)


def _without_noise(value: Any) -> Any:
    """A part of a number without one certain digit is what cancelling has left, so zero."""
    from sympy import Float, I, Integer

    if not all(part.is_Number for part in value.as_real_imag()):
        return None
    real, imaginary = (
        Integer(0) if isinstance(part, Float) and part._prec == 1 else part for part in value.as_real_imag()
    )
    return real + I * imaginary if imaginary else real
