"""Numbers as people write them: grouped digits, powers of ten, words, fractions, with a scale ("million") and a unit.

`read` takes a plain text (notation.py) and answers None where it is not one number; nothing is guessed. Values are
exact fractions. Two quantities are `same` if their values agree, their scales counted and their units converted; a unit
that only one of them names is not held against the other, because questions often name it.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from golongrl.tasks import numerals
from golongrl.tasks.notation import is_words
from golongrl.tasks.units import Unit, read_unit, split_scale
from golongrl.tasks.words import word_set

MAX_EXPONENT = 400  # of ten: beyond, exact numbers get long; math-verify takes them
# A rounded answer counts as its exact value from six significant digits on, and only where math-verify's own tolerance
# of six decimals agrees.
_SIGNIFICANT = 6
_TOLERANCE = Fraction(1, 10**6)

_POWER = r"(?:\\times|\\cdot|[x*])\s*10\s*\^\s*(?:\{\s*([+-]?\d{1,4})\s*\}|([+-]?\d{1,4}))"
_DIGITS = (
    r"(?:[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?"  # 1,234,567.8
    r"|\d{1,2}(?:,\d{2})+,\d{3}(?:\.\d+)?"  # 12,34,567
    r"|\d{1,3}(?:[ '_]\d{3})+(?:[.,]\d+)?(?!\d)"  # 1 234 567,8
    r"|\d{1,3}(?:\.\d{3}){2,}(?:,\d+)?(?!\d)|\d{1,3}(?:\.\d{3})+,\d+(?!\d)"  # 1.234.567,8
    r"|\d+\.\d*|\.\d+|\d+)"
)
_FRACTION = (
    r"(?:\\frac\s*\{\s*(\d{1,40})\s*\}\s*\{\s*(\d{1,40})\s*\}|\\frac\s*(\d)\s*(\d)|"
    r"(\d{1,40}(?:\.\d{1,40})?)\s*/\s*(\d{1,40}))"
)
_NUMBER = re.compile(
    rf"(?P<digits>{_DIGITS})(?:[eE](?P<e>[+-]?\d{{1,4}})(?![\d.])|\s*(?P<power>{_POWER}))?(?![\d/]|\s*\^)"
    rf"|(?P<ten>10\s*\^\s*(?:\{{\s*([+-]?\d{{1,4}})\s*\}}|([+-]?\d{{1,4}})))(?!\d)"
)
_MIXED = re.compile(rf"(?:(\d{{1,40}})\s*(?=\\frac|\s\d))?\s*{_FRACTION}(?![\d./^])")
_SIGN = re.compile(
    r"(?:(?:about|approximately|approx\.?|roughly|around|circa|ca\b\.?|c\.|约|大约|≈|\\approx)\s*)?"
    r"([+-]|–(?=\d)|(?:minus|negative)\s|负|負)?\s*",
    re.IGNORECASE,
)
_ORDINAL = re.compile(r"(\d{1,20})th|#(\d{1,20})")
# "3,14" is a decimal in an answer to a decimal; elsewhere it may be a list. "0,375" groups no thousands.
_DECIMAL_COMMA = re.compile(r"(\d+),(\d{1,2}|(?<=(?<!\d)0,)\d{3}|\d{4,})(?![\d,])")


@dataclass(frozen=True, slots=True)
class Quantity:
    """`value` is the number as written, `scale` what its scale word multiplies it by; `places` counts decimals."""

    value: Fraction
    scale: Fraction
    unit: Unit | None
    places: int
    comma: bool = False  # a decimal comma, unless it is a list

    @property
    def total(self) -> Fraction:
        return self.value * self.scale


@lru_cache(maxsize=4096)
def read(text: str) -> Quantity | None:
    """The quantity that the whole text is, or None."""
    if len(text) > 200:
        return None
    if (together := _sum(text) or _told_twice(text)) is not None:
        return together
    if (ordinal := _ORDINAL.fullmatch(text)) is not None:  # as spelling.py writes it: a rank equals its number
        return Quantity(Fraction(ordinal[1] or ordinal[2]), Fraction(1), None, 0)
    prefix, rest = _currency_before(text)
    sign = _SIGN.match(rest)
    assert sign is not None
    negative = sign[1] not in (None, "+")
    rest = rest[sign.end() :]
    if prefix is None:
        prefix, rest = _currency_before(rest)
    worded = numerals.read(rest)
    found = _digits(rest) if worded is None else (*worded, 0)
    if found is None:
        return None
    value, end, places = found
    scale, tail = split_scale(rest[end:], money=prefix is not None)
    unit = read_unit(tail) if tail else None
    if tail and unit is None:
        return None
    if unit is not None and unit.known and rest[end] == " ":
        unit = Unit(unit.meanings)  # "2 t", as variables stand right behind their number
    if worded and unit is not None and not unit.known and (unit.title or not _counts(unit)):
        return None  # "One Direction" is a name
    if prefix is not None:
        if unit is not None and not unit.compatible(prefix):
            return None
        unit = prefix
    return Quantity(-value if negative else value, scale, unit, places, _is_decimal_comma(rest[:end]))


# "42 (forty-two) rows", "forty-two (42)", "5 km (5000 m)": in digits and in words, or in two units.
_TWICE = re.compile(r"(?=.*[^\W\d_])([^()\[\]]*[^()\[\]\s])\s?[(\[]([^()\[\]]+)[)\]]\s?([^()\[\]]*)")


def _told_twice(text: str) -> Quantity | None:
    found = _TWICE.fullmatch(text)
    first, second = (read(found[i].strip()) for i in (1, 2)) if found is not None else (None, None)
    if found is None or first is None or second is None or not same(first, second):
        return None
    return read(f"{found[1]} {found[3]}") if found[3] else first


# "2 hours 30 minutes", "5 ft 6 in": each part smaller than the one before it.
_SUMMAND = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*([^\W\d_]+)[\s,]*(?:and\s+)?")
_MOST_SUMMANDS = 4


def _sum(text: str) -> Quantity | None:
    """Several quantities of one kind in a row, in the unit of the last one."""
    parts: list[tuple[Fraction, Unit]] = []
    end = 0
    while (found := _SUMMAND.match(text, end)) is not None and len(parts) < _MOST_SUMMANDS:
        # Behind hours, "m" is a minute.
        unit = read_unit("min" if parts and found[2] == "m" and parts[-1][1] == read_unit("h") else found[2])
        if unit is None or not unit.known:
            return None
        parts.append((Fraction(found[1]), unit))
        end = found.end()
    if len(parts) < 2 or end < len(text):
        return None
    last = parts[-1][1]
    total, before = parts[-1][0], Fraction(1)
    for value, unit in reversed(parts[:-1]):
        factors = unit.ratio(last)
        if factors is None or len(factors) != 1 or (factor := next(iter(factors))) <= before:
            return None
        total, before = total + value * factor, factor
    return Quantity(total, Fraction(1), last, 0)


def _is_decimal_comma(text: str) -> bool:
    return _DECIMAL_COMMA.fullmatch(text) is not None and not text.startswith("0,")  # no list begins like that


_CURRENCY = re.compile(
    r"(US\$|HK\$|A\$|C\$|[$€£¥₩₹₽]|(?:USD|EUR|GBP|CNY|RMB|JPY|HKD|CHF|AUD|CAD)(?![A-Za-z])|Rs(?=[.\s]*\d))"
    r"(?:(?<=Rs)\.)?\s*"
)


def _currency_before(text: str) -> tuple[Unit | None, str]:
    found = _CURRENCY.match(text)
    return (read_unit(found[1]), text[found.end() :]) if found else (None, text)


def _digits(text: str) -> tuple[Fraction, int, int] | None:
    """A number in digits: its value, where it ends, and how many decimals it has."""
    mixed = _MIXED.match(text)
    if mixed is not None:
        over, under = (Fraction(part) for part in mixed.groups()[1:] if part is not None)
        return (int(mixed[1] or 0) + over / under, mixed.end(), 0) if under else None
    found = _NUMBER.match(text)
    comma = _DECIMAL_COMMA.match(text)
    if comma is not None and (found is None or comma.end() > found.end()):
        return Fraction(f"{comma[1]}.{comma[2]}"), comma.end(), len(comma[2])
    if found is None:
        return None
    exponent = next((int(part) for part in found.groups()[1:] if part and re.fullmatch(r"[+-]?\d+", part)), 0)
    if abs(exponent) > MAX_EXPONENT:
        return None
    digits = _ungrouped(found["digits"] or "1")
    decimals = len(digits.partition(".")[2])
    places = max(0, decimals - exponent) if found["digits"] else 0
    return Fraction(digits) * Fraction(10) ** exponent, found.end(), places


def _ungrouped(digits: str) -> str:
    if digits.count(".") > 1 or (("," in digits and "." in digits) and digits.rindex(",") > digits.rindex(".")):
        digits = digits.replace(".", "").replace(",", ".")
    elif re.fullmatch(r"\d{1,3}(?:[ '_]\d{3})+,\d+", digits):
        digits = digits.replace(",", ".")
    digits = re.sub(r"[ ,'_]", "", digits)
    return f"0{digits}".rstrip(".")


def same(gold: Quantity, answer: Quantity) -> bool | None:
    """Whether the two agree; None where letters that may be variables stand on one side alone.

    A noun ("12 documents") or a Chinese counter ("12个") there says what is counted, and changes no number.
    """
    if gold.comma or (answer.comma and not gold.places):
        return None
    a, b = gold.total, answer.total
    if gold.unit is None or answer.unit is None:
        only = gold.unit or answer.unit
        if only is None:
            return _close(gold, answer)
        if not only.known:
            return False if only.scaled else _close(gold, answer) if only.counter or _counts(only) else None
        if only.word:
            return False
        if only.share:
            return _close(gold, answer) or _as_share(gold) == _as_share(answer)
        return _close(gold, answer)
    factors = gold.unit.ratio(answer.unit)
    if factors is None:
        kelvin = _kelvin(gold)
        return kelvin is not None and kelvin == _kelvin(answer)
    return _close(gold, answer) if factors == {Fraction(1)} else any(a * factor == b for factor in factors)


def _kelvin(one: Quantity) -> Fraction | None:
    """The temperature that it is. Scales of temperature differ in their zero too, so that no factor converts them."""
    for name, (zero, degree) in _TEMPERATURES.items():
        if one.unit is not None and any(dimensions == {(name, 1)} for dimensions, _ in one.unit.meanings):
            return (one.total + zero) * degree
    return None


_TEMPERATURES = {
    "kelvin": (Fraction(0), Fraction(1)),
    "celsius": (Fraction("273.15"), Fraction(1)),
    "fahrenheit": (Fraction("459.67"), Fraction(5, 9)),
}
# Three letters or more, as shorter words are variables or units that no table knows.
_NOUNS = re.compile(r"[^\W\d_]{3,}(?: [^\W\d_]{3,}){0,2}")
_COMPARING = word_set("and not nor more less fewer than least most over under above below plus minus times")


def _counts(unit: Unit) -> bool:
    """Whether a unit of no table is the noun, with an adjective or two, that is counted; "12 Angry Men" is a name."""
    nouns = _NOUNS.fullmatch(unit.word) is not None and is_words(unit.word)
    return nouns and not unit.title and not _COMPARING & set(unit.word.split())


def _as_share(one: Quantity) -> Fraction:
    """ "5%" answers 5 as well as 0.05."""
    return one.total * (one.unit.factor if one.unit is not None else 1)


def _close(gold: Quantity, answer: Quantity) -> bool:
    if gold.total == answer.total:
        return True
    if gold.scale != answer.scale:
        return False
    rounded, exact = sorted((gold, answer), key=lambda one: (one.places == 0, one.places))
    if not rounded.places or (exact.places and exact.places <= rounded.places) or exact.value.denominator == 1:
        return False
    gap = abs(rounded.value - exact.value)
    significant = len(str(abs(int(rounded.value * 10**rounded.places)))) >= _SIGNIFICANT
    return significant and gap <= Fraction(1, 2 * 10**rounded.places) and gap <= _TOLERANCE
