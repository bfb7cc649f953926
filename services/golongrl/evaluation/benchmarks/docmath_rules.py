"""DocMath's rule for a numeric answer: the published one, and a strict one.

The published rule (`official`, `compat`) takes the first number behind "the answer is", else the whole reply, strips
money words and signs, evaluates the rest as an expression (0 where that fails) and accepts, beside 0.15 %, any power of
ten, the other sign, and numbers whose size rounded up to some decimals agrees. The two modes differ in these decimals
(3 and 2) and in yes/no golds, whose text `compat` takes for true whatever it says. Here the expression is evaluated
without `eval`: numbers, arithmetic, `math.pow`, lists; what else Python could evaluate counts as failed.

The strict rule reads the last stated answer as a quantity with its sign, currency, scale word ("5 million" may mean 5
where the question asks for millions) and percent sign, and accepts 0.15 % of the gold. A fraction and a percentage are
the same where the smaller of the two is below 1 (0.125 and 12.5) or a percent sign is written.
"""

import ast
import math
import operator
import re
import warnings
from collections.abc import Callable
from typing import Any, Final

from golongrl.evaluation.benchmarks.reading import bare
from golongrl.tasks import quantity
from golongrl.tasks.notation import plain

TOLERANCE: Final = 0.0015
# Above these a power is not worth its time, and no gold is so large.
_MOST_EXPONENT: Final = 400
_LONGEST: Final = 2_000

_STATED = re.compile(r"the answer is (=?≈?`?%?\$?°?£?€?¥?-?[0-9.,]+)", re.IGNORECASE)
_GROUPED = re.compile(r"[-+]?(\d{1,3}(,\d{3})*|\d+)(\.\d+)?")
_MONEY: Final = ("£", "€", "¥", "million", "billion", "thousand", "US", "USD", "RMB")
_PLAIN_NUMBER: Final = r"[-+]?(?:[\d,]*\.*\d+)"
# A unit in front of or behind a number, in the order in which the published rule drops them.
_UNITS: Final = (
    re.compile(rf"({_PLAIN_NUMBER}) [^0-9 ]+$"),
    re.compile(rf"[^0-9 ]+ ({_PLAIN_NUMBER})$"),
    re.compile(rf"({_PLAIN_NUMBER})[^\d]{{1,2}}$"),
    re.compile(r"[^-+\d]{1,2}((?:[\d,]*\.*\d+))$"),
)
_OPERATORS: Final[dict[type[ast.AST], Callable[..., Any]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
# What evaluating a hostile text can raise; the published code takes them all for 0.
_ERRORS: Final = (ArithmeticError, LookupError, MemoryError, RecursionError, SyntaxError, TypeError, ValueError)


def published_rule(text: str, gold: str, kind: str, *, decimals: int, gold_text_is_true: bool) -> float:
    """The published rule; see the module."""
    try:
        found = _published_value(_published_answer(text))
        if kind == "bool":
            return float(found == (bool(gold) if gold_text_is_true else gold == "True"))
        return float(_published_same(found, int(gold) if kind == "int" else float(gold), decimals))
    except _ERRORS:
        return 0.0


def _published_answer(text: str) -> str:
    bare = re.sub(r"[*()]", "", text)
    found = _STATED.search(bare)
    return found[1].replace(",", "").rstrip(".") if found is not None else bare


def _published_value(answer: str) -> Any:
    answer = answer.strip().rstrip(".")
    for word in _MONEY:
        answer = answer.replace(word, "")
    for sign in "=≈":
        answer = answer.split(sign)[-1].strip() if sign in answer else answer
    answer = re.sub(r"[`%$°]", "", answer)
    answer = {"true": "True", "yes": "True", "false": "False", "no": "False"}.get(answer, answer)
    for truth in ("True", "False"):
        if truth in answer:
            answer = truth
            break
    if "approximately" in answer:
        answer = answer.replace("approximately", "").strip()
    answer = answer.split(" or ")[0]
    if len(answer) > _LONGEST:
        return 0  # no expression, and the patterns below take quadratic time
    for unit in _UNITS:
        found = unit.match(answer)
        answer = found[1] if found is not None else answer
    answer = re.sub(r"10\^(-?\d+)", r"math.pow(10, \1)", answer).replace(" x ", "*").replace(" × ", "*")
    if _GROUPED.fullmatch(answer):
        answer = answer.replace(",", "")
    try:
        value = evaluate(answer or "0")
    except _ERRORS:
        return 0
    return value.real if isinstance(value, complex) else value


def evaluate(expression: str) -> Any:
    """The value of an arithmetic expression. Raises what Python raises for it; SyntaxError where it is none."""
    with warnings.catch_warnings():
        # What models write is often odd Python ("1or 2"); a line for each on the terminal helps nobody.
        warnings.simplefilter("ignore", SyntaxWarning)
        parsed = ast.parse(expression.strip(), mode="eval")
    return _value(parsed.body)


def _value(node: ast.AST) -> Any:
    match node:
        case ast.Constant(value):
            return value
        case ast.UnaryOp(op, operand) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(operand))
        case ast.BinOp(left, ast.Pow(), right):
            return _power(_value(left), _value(right))
        case ast.BinOp(left, op, right) if type(op) in _OPERATORS:
            sides = _value(left), _value(right)
            if not all(isinstance(side, int | float | complex) for side in sides):
                raise TypeError("only numbers are calculated with")
            return _OPERATORS[type(op)](*sides)
        case ast.Tuple(elements) | ast.List(elements) | ast.Set(elements):
            return [_value(element) for element in elements]
        case ast.Call(ast.Attribute(ast.Name("math"), "pow"), [base, exponent], []):
            return math.pow(_value(base), _value(exponent))
    raise SyntaxError("not arithmetic")


def _power(base: Any, exponent: Any) -> Any:
    if not isinstance(base, int | float) or not isinstance(exponent, int | float):
        raise TypeError("only numbers are calculated with")
    if abs(exponent) > _MOST_EXPONENT or abs(base) > 10.0**15:
        raise OverflowError("too large for an answer")
    return base**exponent


def _published_same(found: Any, gold: float, decimals: int) -> bool:
    if not isinstance(found, int | float):  # True and False are numbers here, as in the published code
        return False
    large, small = max(abs(gold), abs(found)), min(abs(gold), abs(found))
    if large and small:
        magnitude = math.log10(large / small)
        if int(magnitude) == magnitude:
            return True
    if any(
        small <= large / below and _within(small * factor, large)
        for below, factor in ((50, 100), (500, 1_000), (50_000, 100_000))
    ):
        return True
    scale = 10**decimals
    return math.ceil(large * scale) == math.ceil(small * scale) or _within(found, gold)


def _within(found: float, gold: float) -> bool:
    return abs(found - gold) <= abs(gold) * TOLERANCE


_TRUTH = re.compile(r"(?:(yes|true)|(?:no|false))\b", re.IGNORECASE)
_ONE_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?\s*%?")
_ANSWER_IS = re.compile(r"\banswer\s*(?:is|=|:)\s*:?", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\.\s|\n")
_BOX = re.compile(r"\\boxed\s*\{([^{}]*)\}")


def strict_rule(text: str, gold: str, kind: str) -> float:
    """The strict rule; see the module."""
    answer = plain(bare(_strictly_stated(text)))
    if kind == "bool":
        said = _TRUTH.match(answer)
        return float(said is not None and (said[1] is not None) == (gold == "True"))
    try:
        golden = float(gold)
    except ValueError:
        return 0.0
    return float(any(_strictly_same(value, golden, percent) for value, percent in _readings(answer)))


def _strictly_stated(text: str) -> str:
    """The last box, else the sentence behind the last "answer is", else the last line."""
    text = text.replace("*", "")
    boxes = _BOX.findall(text)
    if boxes:
        return str(boxes[-1])
    stated = [_SENTENCE_END.split(piece.strip())[0] for piece in _ANSWER_IS.split(text)[1:] if piece.strip()]
    lines = stated or [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _readings(answer: str) -> list[tuple[float, bool]]:
    """What an answer may mean, and whether it carries a percent sign."""
    if not any(character.isdigit() for character in answer):
        return []  # numbers in words are left to the judge
    read = quantity.read(answer)
    if read is None:
        numbers = _ONE_NUMBER.findall(answer)
        read = quantity.read(numbers[0].strip()) if len(numbers) == 1 else None
    if read is None:
        return []
    try:
        value, scaled = float(read.value), float(read.total)
    except OverflowError:
        return []
    if read.unit is not None and read.unit.share:
        return [(value, True), (value / 100, True)]
    return [(value, False), (scaled, False)]


def _strictly_same(value: float, gold: float, percent: bool) -> bool:
    if _within(value, gold):
        return True
    if percent or not 0 < min(abs(value), abs(gold)) < 1:
        return False
    return _within(value * 100, gold) or _within(value / 100, gold)
