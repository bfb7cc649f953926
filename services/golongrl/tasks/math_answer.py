"""Mathematical equality by math-verify, with the inputs that would hang it refused (math_limits.py).

math-verify parses and compares without its own time-out, which needs SIGALRM and so silently fails outside the main
thread. Its LaTeX parser takes milliseconds; two shorter ways spare plain answers that, and decide nothing on which the
library could find otherwise: a box with one number is read by a regular expression, and the text that math-verify would
parse first is compared as a string and as a plain formula (algebra.py).

Invariant: a comparison that crashed inside the library is never a 0 (the library itself makes it one).
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from itertools import groupby, product
from typing import Any

from golongrl.tasks import algebra, math_library, precise
from golongrl.tasks.math_limits import (
    COMPAT,
    MAX_GOLD_PARTS,
    STRICT,
    STRICT_BRACKETS,
    refuse_costly_gold,
    refuse_evaluation,
    refuse_huge,
    refuse_nesting,
    refuse_simplifying,
    refuse_size,
)
from golongrl.tasks.outcome import TooLargeError, UnscorableError

TAIL = 500  # characters of the text that are searched for an answer

# Two different fractions of at most six digits differ by 1e-12 or more, far above math-verify's numeric tolerance, so
# that for them its verdict is that of exact arithmetic.
_NUMBER = re.compile(r"(-?)(?:\\[dt]?frac\{(\d{1,6})\}\{(\d{1,6})\}|(\d{1,6})(?:/(\d{1,6}))?)")
_BOXED_NUMBER = re.compile(rf"\\boxed\{{({_NUMBER.pattern})\}}")
# What, standing before or after the only box, could make math-verify read something else.
_BEFORE = re.compile(r"\\boxed|(?i:final answer)")
_AFTER = re.compile(r"[\]{}$\\]|(?i:final answer)")
_PERCENT = re.compile(r"\s*(?:%|[Pp]ercent|[Pp]ct)")  # behind a formula in dollar signs it counts


def equal(golds: Sequence[str], text: str, *, strict: bool = False, window: int = TAIL) -> float:
    """1 if the answer in the last `window` characters of `text` equals any of `golds`, as a string or mathematically.

    `strict` compares numbers relative to their size (precise.py), where math-verify rounds to six decimals, and bounds
    the work: what is too large or too complex raises TooLargeError. Without it some inputs take minutes.

    Raises TooLargeError if the answer is too large to evaluate or nested too deeply to parse, UnscorableError if a
    gold is, or if a comparison crashed and none found the two equal.
    """
    tail = text[-window:] if window else ""
    answer = _plain_answer(tail)
    if answer is not None:
        numbers = [_fraction(_NUMBER.fullmatch(gold)) for gold in golds]
        if answer in numbers:
            return 1.0
        if None not in numbers:
            return 0.0
    refuse_nesting(tail)
    verdict = _without_parsing(golds, tail)
    if verdict is not None:
        return float(verdict)
    if strict:
        refuse_nesting(tail, STRICT_BRACKETS)
        refuse_evaluation(tail)
    parsed = _parse(tail)
    if len(parsed) < 2:
        return 0.0
    if parsed[1] in golds:
        return 1.0
    refuse_huge(parsed[0], STRICT if strict else COMPAT)
    return float(_verify_any(golds, parsed, strict))


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
        if re.search(r"[$\\\[]", before) or _PERCENT.match(after):
            return None
    if _BEFORE.search(before) or _AFTER.search(after):
        return None
    return _fraction(boxed)


@lru_cache(maxsize=1)
def _patterns() -> tuple[tuple[tuple[re.Pattern[str], Any], ...], ...]:
    """math-verify's patterns with the kind of answer each finds, grouped by priority, as its `parse` tries them."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig
    from math_verify.parser import get_extraction_regexes

    kinds = get_extraction_regexes([LatexExtractionConfig(), ExprExtractionConfig()])
    all_patterns = [(priority, pattern, kind) for patterns, kind in kinds for pattern, priority in patterns]
    ordered = sorted(all_patterns, key=lambda one: one[0])
    return tuple(tuple(one[1:] for one in group) for _, group in groupby(ordered, key=lambda one: one[0]))


def _first_latex(tail: str) -> str | None:
    """The normalised LaTeX that math-verify would parse first, or None if that is not exactly one formula.

    Rightmost end first, then leftmost start; several formulas, a percent sign behind one and a number outside LaTeX
    are not for the short way.
    """
    for patterns in _patterns():
        found = [(match, kind) for pattern, kind in patterns for match in pattern.finditer(tail)]
        if found:
            found.sort(key=lambda one: (one[0].end(), -one[0].start()), reverse=True)
            return _one_formula(*found[0])
    return None


def _one_formula(match: re.Match[str], kind: Any) -> str | None:
    from latex2sympy2_extended.math_normalization import normalize_latex

    parts = {name: text for name, text in match.groupdict().items() if text}
    if len(parts) != 1:
        return None
    ((name, text),) = parts.items()
    if not name.startswith("first_latex"):
        return None
    config = kind.normalization_config
    if name == "first_latexBoxed":
        config = replace(config, boxed="last")
    return normalize_latex(text, config) or None


def _without_parsing(golds: Sequence[str], tail: str) -> bool | None:
    """The verdict where strings and plain formulas decide it, else None."""
    text = _first_latex(tail)
    if text is None:
        return None
    answer = algebra.read(text)
    if answer is not None and text in golds:
        return True
    verdicts = [_same(gold, text, answer) for gold in golds]
    return True if True in verdicts else None if None in verdicts else False


def _same(gold: str, text: str, answer: algebra.Formula | None) -> bool | None:
    latex = _gold_latex(gold)
    if latex is None:
        return None
    if latex == text:
        return True
    formula = algebra.read(latex) if answer is not None else None
    return algebra.same(formula, answer) if formula is not None and answer is not None else None


@lru_cache(maxsize=1024)
def _gold_latex(gold: str) -> str | None:
    """The gold's normalised LaTeX, if that is what math-verify reads first in it and can parse."""
    boxed = _boxed(gold)
    _gold(gold)  # refuses what would hang here
    parsed = _parse(boxed, extraction_mode="first_match")
    return parsed[1] if len(parsed) == 2 and parsed[1] == _first_latex(boxed) else None


def _boxed(gold: str) -> str:
    return f"\\boxed{{{gold}}}"


def _parse(text: str, **options: Any) -> list[Any]:
    found: list[Any]
    found, crash = math_library.call("parse", text, parsing_timeout=None, **options)
    if crash is not None:
        raise UnscorableError(math_library.describe(crash))
    return found


def _gold(gold: str) -> tuple[Any, ...]:
    readings = _readings(gold)
    if isinstance(readings, str):
        raise UnscorableError(readings)
    return readings


@lru_cache(maxsize=1024)  # a group's responses share their gold
def _readings(gold: str) -> tuple[Any, ...] | str:
    """What the gold may mean, or why it is refused: that is found once, too."""
    try:
        refuse_costly_gold(gold)
        parsed = _parse(_boxed(gold))
        if parsed:
            refuse_size(parsed[0], MAX_GOLD_PARTS)
            refuse_huge(parsed[0], STRICT)
    except TooLargeError as error:
        return f"invalid ground truth: the golden {error}"
    except UnscorableError as error:
        return str(error)
    return tuple(parsed)


def _verify_any(golds: Sequence[str], parsed: list[Any], strict: bool) -> bool:
    """Whether any reading of any gold equals any reading of the answer. Raises UnscorableError if a comparison crashed
    and no other found them equal.
    """
    crashed = ""
    pairs = [pair for gold in golds for pair in product(_gold(gold), parsed)]
    pairs.sort(key=lambda pair: not isinstance(pair[0], str))  # comparing strings is free
    for gold, answer in pairs:
        known = precise.verdict(gold, answer) if strict else None
        if known is not None:
            if known:
                return True
            continue
        if strict and not isinstance(gold, str) and not isinstance(answer, str):
            refuse_simplifying(answer)
        # With the option, the library takes "x > 3" for the interval too, not only an interval for "x > 3".
        equal, crash = math_library.call("verify", gold, answer, timeout_seconds=None, allow_set_relation_comp=strict)
        if equal:
            return True
        crashed = math_library.describe(crash) if crash is not None else crashed
    if crashed:
        raise UnscorableError(crashed)
    return False


def check_golds(golds: Sequence[str]) -> None:
    """Raise UnscorableError if a gold is too large or nested too deeply to compare anything with."""
    for gold in golds:
        _gold(gold)


def comparable(golds: Sequence[str]) -> bool:
    """Whether every gold can be read and compared with itself; if so, a comparison crashed because of the answer."""
    for gold in golds:
        for reading in _gold(gold):
            _, crash = math_library.call("verify", reading, reading, timeout_seconds=None)
            if crash is not None:
                return False
    return True
