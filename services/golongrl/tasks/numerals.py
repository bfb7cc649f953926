"""Numbers in English and Chinese words: cardinals, ordinals, fractions.

Each reader takes the words at the beginning of a text and gives their value and where they end, or None.
"""

import re
from fractions import Fraction
from types import MappingProxyType

from golongrl.tasks.words import words

_ONES = MappingProxyType(
    {
        word: value
        for value, word in enumerate(
            words(
                "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
                " sixteen seventeen eighteen nineteen"
            )
        )
    }
)
TENS = MappingProxyType(
    {word: 10 * i for i, word in enumerate(words("twenty thirty forty fifty sixty seventy eighty ninety"), 2)}
)
CARDINALS = MappingProxyType({**_ONES, **TENS, "hundred": 100, "thousand": 1000})
_LARGE = MappingProxyType(
    {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12} | {"quadrillion": 10**15}
)
_IRREGULAR = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth"}
_IRREGULAR |= {"twelve": "twelfth"}
ORDINALS = MappingProxyType(
    {
        _IRREGULAR.get(word, re.sub("y$", "ie", word) + "th"): value
        for word, value in ({**_ONES, **TENS, "hundred": 100}).items()
        if value
    }
)
# What a fraction in words ends with; "second" is none.
_UNDERS = MappingProxyType(
    {"half": 2, "halves": 2, "quarter": 4, "quarters": 4}
    | {word + s: under for word, under in ORDINALS.items() if 2 < under <= 10 for s in ("", "s")}
)
_CARDINAL = "|".join([*_ONES, *TENS, *_LARGE, "hundred"])
_ENGLISH = re.compile(rf"(?:(?:{_CARDINAL}|and)(?![a-z])(?:[\s-]|(?<=sand),|(?<=lion),)*)+", re.IGNORECASE)
_POINT = re.compile(rf"\s?point((?:[\s-](?:{'|'.join([*_ONES][:10])})(?![a-z]))+)", re.IGNORECASE)
# "three quarters", "one and a half", "2 and a half"; "third" alone is an ordinal.
_FRACTION = re.compile(
    rf"(?:(?P<whole>\d{{1,9}}|(?:(?:{_CARDINAL})[\s-]+)+?)\s*and\s+)?"
    rf"(?:(?P<over>an?|{'|'.join(_ONES)})[\s-]+)?"
    rf"(?P<under>{'|'.join(sorted(_UNDERS, key=len, reverse=True))})(?![a-z])",
    re.IGNORECASE,
)
HAN_DIGITS = MappingProxyType(
    {c: i for i, c in enumerate("零一二三四五六七八九")}
    | {"〇": 0, "两": 2, "兩": 2}
    | {c: i for i, c in enumerate("壹贰叁肆伍陆柒捌玖", 1)}
)
_HAN_UNITS = MappingProxyType({"十": 10, "百": 100, "千": 1000, "拾": 10, "佰": 100, "仟": 1000})
_HAN_LARGE = MappingProxyType({"万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8})
HAN = rf"[{''.join([*HAN_DIGITS, *_HAN_UNITS, *_HAN_LARGE])}]{{1,20}}"
_HAN_NUMBER = re.compile(rf"(?P<under>{HAN})分之(?P<over>{HAN})|{HAN}")


def read(text: str) -> tuple[Fraction, int] | None:
    """A number in words."""
    return _fraction(text) or _cardinal(text) or _chinese(text)


def _fraction(text: str) -> tuple[Fraction, int] | None:
    found = _FRACTION.match(text)
    if found is None or not (found["over"] or found["under"].lower() == "half"):
        return None
    over = _ONES.get((found["over"] or "a").lower(), 1)
    whole = (found["whole"] or "0").strip(" -").lower()
    size = int(whole) if whole.isdecimal() else _value(whole)
    return None if size is None else (size + Fraction(over, _UNDERS[found["under"].lower()]), found.end())


def _cardinal(text: str) -> tuple[Fraction, int] | None:
    found = _ENGLISH.match(text)
    value = _value(found[0].lower().strip(" -,")) if found is not None else None
    if found is None or value is None:
        return None
    point = _POINT.match(text, found.end() - (text[found.end() - 1] == " "))
    if point is None:
        return Fraction(value), found.end()
    decimals = "".join(str(_ONES[word]) for word in re.split(r"[\s-]", point[1].lower())[1:])
    return Fraction(f"{value}.{decimals}"), point.end()


def _value(spelled: str) -> int | None:
    parts = re.split(r"[\s,-]+", spelled)
    if parts[0] not in _ONES and parts[0] not in TENS:
        return None
    total = part = 0
    for word in parts:
        if word in _LARGE:
            total, part = total + max(1, part) * _LARGE[word], 0
        elif word == "hundred":
            part = max(1, part) * 100
        else:
            part += _ONES.get(word, 0) + TENS.get(word, 0)
    return total + part


def _chinese(text: str) -> tuple[Fraction, int] | None:
    found = _HAN_NUMBER.match(text)
    over, under = (han(found[0]), 1) if found is not None and not found["under"] else (None, None)
    if found is not None and found["under"]:
        over, under = han(found["over"]), han(found["under"])
    return (Fraction(over, under), found.end()) if found is not None and over is not None and under else None


def han(text: str) -> int | None:
    """The value of a Chinese numeral: digits ("二〇二一") or with units ("三百五" is 350)."""
    if all(c in HAN_DIGITS for c in text):
        return int("".join(str(HAN_DIGITS[c]) for c in text))
    total = section = digit = last = 0
    for c in text:
        if c in HAN_DIGITS:
            digit, last = HAN_DIGITS[c], last if HAN_DIGITS[c] else 0
        elif c in _HAN_UNITS:
            section, digit, last = section + (digit or (1 if not section else 0)) * _HAN_UNITS[c], 0, _HAN_UNITS[c]
        else:
            large, part = _HAN_LARGE[c], section + digit
            # 一亿二千万: the smaller one is added to the larger before it. 一万亿: the larger multiplies all before it.
            total = total + part * large if total > large else (total + part) * large
            section, digit, last = 0, 0, large
    # A last digit right behind a unit counts tenths of it, unless a zero stands between.
    return total + section + digit * (last // 10 if last > 10 and text[-1] in HAN_DIGITS else 1) or None
