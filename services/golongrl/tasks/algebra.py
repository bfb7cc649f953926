"""Equality of plain formulas, decided in microseconds where math-verify's answer is certain.

Plain formulas are built from integers, decimals, one-letter variables, + - * /, whole exponents, fractions, square
roots and pi. They are read into small trees. `same` answers True or False only where math-verify must give the same
answer, and None (ask math-verify) everywhere else:

- False: the two differ at a generic rational point by far more than its numeric tolerance;
- True: they are one rational function, by exact arithmetic.

A formula that the LaTeX reader understands in another way than a person is not plain: "2 3" and "2(3)" are mixed
numbers (5), a single variable is compared as a word, "e", "i", "d" and "tr" have their own meanings, "f(x)" may be a
function.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from types import MappingProxyType
from typing import Any

# A literal of more digits could differ from another by less than the tolerances below.
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d{1,12}(?:\.\d{1,8})?(?![\d.,]))|(?P<letter>(?!tr)[abckmnpqrstuvwxyz])(?![a-zA-Z]{2})"
    r"|(?P<command>\\(?:frac|sqrt|pi|cdot|times)(?![a-zA-Z]))|(?P<sign>[-+*/^(){}]))\s*"
)
_GROUPED = re.compile(r"-?[1-9]\d{0,2}(?:,\d{3}){1,3}(?:\.\d{1,8})?")  # thousands

MAX_POWER = 12  # of one exponent; and of all exponents around a term, multiplied
# math-verify rounds at the sixth decimal where a decimal takes part, and else evaluates to 15 digits.
_DECIMAL_GAP = 1e-5
_GAP = 1e-9  # times the larger of the two
# The values of letters when formulas are compared at a point: a prime over a prime, so that nothing cancels by chance.
_PRIMES = (10007, 10037, 10067, 10079, 10099, 10133, 10151, 10163, 10177, 10193,
           10223, 10247, 10259, 10271, 10289, 10303, 10321)  # fmt: skip
_POINT = MappingProxyType(
    {letter: Fraction(prime, 7919) for letter, prime in zip("abckmnpqrstuvwxyz", _PRIMES, strict=True)}
)


Tree = tuple[Any, ...]
# (kind, part, ...); kinds: number, letter, + - * / ^ sqrt pi
_MINUS = ("number", Fraction(-1))


@dataclass(frozen=True)
class Formula:
    """A plain formula: its tree, its letters, and whether a decimal or something irrational is in it."""

    tree: Tree
    letters: frozenset[str]
    decimal: bool
    irrational: bool


class _NotPlainError(Exception):
    """The text is not, or perhaps not, a plain formula."""


class _ExpressionReader:
    """Recursive descent with the precedence of LaTeX: what stands side by side binds tighter than a slash."""

    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        self.at = 0
        end = 0
        while end < len(text):
            found = _TOKEN.match(text, end)
            if found is None:
                raise _NotPlainError
            kind = found.lastgroup or ""
            self.tokens.append((kind, found[kind]))
            end = found.end()

    @property
    def next(self) -> str:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else ""

    def take(self, expected: str = "") -> tuple[str, str]:
        if self.at >= len(self.tokens) or (expected and self.next != expected):
            raise _NotPlainError
        self.at += 1
        return self.tokens[self.at - 1]

    def whole(self) -> Tree:
        tree = self.sum()
        if self.at < len(self.tokens):
            raise _NotPlainError
        return tree

    def sum(self) -> Tree:
        negative = self.next == "-"
        if negative:
            self.take()
        tree = self.product()
        if negative:
            tree = ("*", _MINUS, tree)
        while self.next in ("+", "-"):
            tree = (self.take()[1], tree, self.product())
        return tree

    def product(self) -> Tree:
        tree = self.side_by_side()
        while self.next in ("*", "/", "\\cdot", "\\times"):
            sign = "/" if self.take()[1] == "/" else "*"
            tree = (sign, tree, self.side_by_side())
        return tree

    def side_by_side(self) -> Tree:
        tree = self.power()
        while self.next and self.next not in "+-*/)}" and self.next not in ("\\cdot", "\\times"):
            factor = self.power()
            if not _never_a_number(factor):  # "2 3" and "2(3)" are mixed numbers
                raise _NotPlainError
            tree = ("*", tree, factor)
        return tree

    def power(self) -> Tree:
        tree = self.atom()
        if self.next != "^":
            return tree
        self.take()
        braced = self.next == "{"
        negative = False
        if braced:
            self.take()
            negative = self.next == "-"
            if negative:
                self.take()
        kind, digits = self.take()
        if kind != "number" or len(digits) > (2 if braced else 1) or not 0 < int(digits) <= MAX_POWER:
            raise _NotPlainError
        if braced:
            self.take("}")
        return ("^", tree, -int(digits) if negative else int(digits))

    def atom(self) -> Tree:
        kind, token = self.take()
        if kind == "number":
            return ("number", Fraction(token), "." in token)
        if kind == "letter":
            return ("letter", token)
        if token == "(":
            tree = self.sum()
            self.take(")")
            return tree
        if token == "\\pi":
            return ("pi",)
        if token == "\\sqrt":
            return ("sqrt", self.braced())
        if token == "\\frac":
            return ("/", self.braced(), self.braced())
        raise _NotPlainError

    def braced(self) -> Tree:
        self.take("{")
        tree = self.sum()
        self.take("}")
        return tree


def _never_a_number(tree: Tree) -> bool:
    """Whether the LaTeX reader cannot have folded it into one number already."""
    return any(part[0] in ("letter", "pi", "sqrt") for part in _parts(tree))


def _parts(tree: Tree) -> list[Tree]:
    found = [tree]
    for part in found:
        found += [inner for inner in part[1:] if isinstance(inner, tuple)]
    return found


def _degree(tree: Tree) -> int:
    inner = max((_degree(part) for part in tree[1:] if isinstance(part, tuple)), default=1)
    return inner * abs(tree[2]) if tree[0] == "^" else inner


@lru_cache(maxsize=1024)  # a group's responses share their gold
def read(text: str) -> Formula | None:
    """The formula that `text` (normalised LaTeX) is, or None if it is not a plain one."""
    try:
        tree = _ExpressionReader(text.replace(",", "") if _GROUPED.fullmatch(text) else text).whole()
    except _NotPlainError:
        return None
    parts = _parts(tree)
    if tree[0] == "letter" or _degree(tree) > MAX_POWER:
        return None
    return Formula(
        tree,
        frozenset(part[1] for part in parts if part[0] == "letter"),
        any(part[0] == "number" and part[2:] == (True,) for part in parts),
        any(part[0] in ("pi", "sqrt") for part in parts),
    )


def same(gold: Formula, answer: Formula) -> bool | None:
    """Whether the two are equal, where math-verify must find the same; None where only it can tell."""
    irrational = gold.irrational or answer.irrational
    decimal = gold.decimal or answer.decimal
    try:
        a, b = (_real(one) if irrational else _exact(one) for one in (gold, answer))
        gap = _GAP * max(1.0, abs(float(a)), abs(float(b)))
        if float(abs(a - b)) > (max(_DECIMAL_GAP, gap) if decimal else gap):
            return False
        if irrational or (decimal and not (_literal(gold) and _literal(answer))) or a != b:
            return None
        return True if not gold.letters | answer.letters else _identical(gold, answer)
    except (ZeroDivisionError, OverflowError, _NotPlainError):
        return None


def _literal(formula: Formula) -> bool:
    tree = formula.tree[2] if formula.tree[:2] == ("*", _MINUS) else formula.tree
    return bool(tree[0] == "number")


def _value(
    tree: Tree, letters: Mapping[str, Any], number: Callable[[Fraction], Any], special: Callable[..., Any]
) -> Any:
    """The tree's value in whatever field `letters` and `number` give; `special` makes roots and pi."""
    match tree:
        case ("number", value, *_):
            return number(value)
        case ("letter", name):
            return letters[name]
        case ("^", base, exponent):
            return _value(base, letters, number, special) ** exponent
        case ("sqrt" | "pi", *inner):
            return special(tree[0], *(_value(part, letters, number, special) for part in inner))
    a, b = (_value(part, letters, number, special) for part in tree[1:])
    match tree[0]:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
    return a / b


def _no_special(kind: str, *_: object) -> Any:
    raise _NotPlainError(kind)


def _exact(formula: Formula) -> Fraction:
    value: Fraction = _value(formula.tree, _POINT, lambda number: number, _no_special)
    return value


def number(text: str) -> Fraction | None:
    """The value of a plain formula that is a rational number, or None."""
    formula = read(text)
    try:
        return _exact(formula) if formula is not None and not formula.letters else None
    except (ZeroDivisionError, _NotPlainError):
        return None


@lru_cache(maxsize=1)
def _floats() -> Any:
    import mpmath  # type: ignore[import-untyped]

    context = mpmath.MPContext()  # its own: the global one is the caller's
    context.dps = 60
    return context


def _real(formula: Formula) -> Any:
    """The formula's value at the point, with 60 digits."""
    context = _floats()

    def number(value: Fraction) -> Any:
        return context.mpf(value.numerator) / value.denominator

    def special(kind: str, *inner: Any) -> Any:
        if kind == "pi":
            return +context.pi
        if inner[0] < 0:
            raise _NotPlainError("a complex root")
        return context.sqrt(inner[0])

    point = {letter: number(_POINT[letter]) for letter in formula.letters}
    return _value(formula.tree, point, number, special)


def _identical(gold: Formula, answer: Formula) -> bool | None:
    """True if the two are one rational function, else None."""
    number, letters = _fractions_in(tuple(sorted(gold.letters | answer.letters)))
    a, b = (_value(one.tree, letters, number, _no_special) for one in (gold, answer))
    return True if a == b else None


@lru_cache(maxsize=64)
def _fractions_in(letters: tuple[str, ...]) -> tuple[Callable[[Fraction], Any], Mapping[str, Any]]:
    """The field of rational functions in these letters: how to make a number and a letter of it."""
    from sympy import QQ

    field = QQ.frac_field(*letters).field

    def number(value: Fraction) -> Any:
        return field(QQ(value.numerator, value.denominator))

    return number, dict(zip(letters, field.gens, strict=True))
