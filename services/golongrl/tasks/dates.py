"""Answers that hold digits and signs but are no arithmetic: dates, times, ranges, codes with several separators.

math-verify reads "2021-03-04" as 2014 and "10-20" as -10. `read` gives such a text a value to compare by equality, so
that a date equals itself in another notation and nothing else. An order of day and month that a text leaves open
("03/04/2021") is kept as it stands and equals the same order alone.
"""

import re
from datetime import date, time
from fractions import Fraction
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from golongrl.tasks import quantity

Mark = tuple[Any, ...]

_MONTHS = MappingProxyType(
    {
        name: 1 + i % 12
        for language in (
            "january february march april may june july august september october november december",
            "jan feb mar apr may jun jul aug sep oct nov dec",
            "januar februar märz april mai juni juli august september oktober november dezember",
            "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
            "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
            "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
            "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
            "января февраля марта апреля мая июня июля августа сентября октября ноября декабря",
            "январь февраль март апрель май июнь июль август сентябрь октябрь ноябрь декабрь",
        )
        for i, name in enumerate(language.split())
    }
    | {"sept": 9}
)
_NAME = rf"(?P<month>{'|'.join(sorted(_MONTHS, key=len, reverse=True))})\.?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th|er|\.)?"
_YEAR = r"(?P<year>\d{4})"
_OF = r"(?:\s*,\s*|\s+)(?:(?:of|de|del)\s+)?"
_TIME = r"(?:[T\s,]+(?:at\s+)?(?P<time>\d{1,2}(?::\d{2}.*|\s?[ap]\.?m\.?)))?"
_NAMED = tuple(
    re.compile(form + _TIME, re.IGNORECASE)
    for form in (
        rf"{_NAME}\s*{_DAY}{_OF}{_YEAR}",
        rf"{_DAY}{_OF}{_NAME}{_OF}{_YEAR}(?:\s*г\.?(?:ода)?)?",
        rf"{_YEAR}{_OF}{_NAME}{_OF}{_DAY}",
        rf"{_NAME}{_OF}{_YEAR}",
        rf"{_NAME}\s+{_DAY}",
        rf"{_DAY}{_OF}{_NAME}",
        r"(?P<year>\d{4})\s*[年년]\s*(?P<number>\d{1,2})\s*[月월](?:\s*(?P<day>\d{1,2})\s*[日号號일])?",
        r"(?P<number>\d{1,2})\s*[月월]\s*(?P<day>\d{1,2})\s*[日号號일]",
        rf"{_YEAR}(?P<sign>[-/.])(?P<number>\d{{1,2}})(?P=sign)(?P<day>\d{{1,2}})",
    )
)
_WEEKDAY = re.compile(
    r"(?:on\s+)?(?:(?:mon|tues?|wednes|thurs?|fri|satur|sun)(?:day)?|mon|wed|sat)\.?,?\s+(?=\S)|(?:星期|周)[一二三四五六日天]\s*",
    re.IGNORECASE,
)
_EIGHT_DIGITS = re.compile(r"(?P<year>\d{4})(?P<number>\d{2})(?P<day>\d{2})")
_OPEN_ORDER = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4}|\d{2})" + _TIME)
_YEAR_MONTH = re.compile(r"(?P<year>1\d{3}|20\d\d)[-/.](?P<number>0[1-9]|1[0-2])")
_MONTH_YEAR = re.compile(r"(?P<number>0?[1-9]|1[0-2])[-/](?P<year>1\d{3}|20\d\d)")
_CLOCK = re.compile(
    r"(?=\d+\s?[:ap])(\d{1,2})(?::(\d{2}))?(?::(\d{2})(?:\.\d+)?)?\s*(?:([ap])\.?\s?m\.?)?\s*(?:Z|UTC|GMT)?",
    re.IGNORECASE,
)
_HALF = re.compile(r"\s?[ap]\.?\s?m\.?$", re.IGNORECASE)
_HOUR_ALONE = re.compile(r"\d{1,2}(?::\d{2})?")
_SEASON = re.compile(r"(1[5-9]\d\d|20\d\d)\s*[-–—/]\s*(\d\d|1[5-9]\d\d|20\d\d)")
_CODE = re.compile(r"(?:[A-Za-z]|\+)?\d+(?:\s*[-–—./:]\s*\d+){2,}[A-Za-z]?")
_RANGE = re.compile(r"\s*(?:[–—~〜～－至到]|--|\s(?:to|through|until|bis|à)\s|-)\s*")
_RATIO = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)\s?(?:[:∶比]|\s(?:to|:)\s|/|\bto\b)\s?(\d{1,20}(?:\.\d{1,20})?)")
_INTERVAL = re.compile(r"\[\s?([^,\[\]]{1,30}),\s?([^,\[\]]{1,30})\]")
_SIGN_OF_RATIO = re.compile(r"[:∶比]")
_QUOTIENT = re.compile(r"\\frac\s?\{(\d{1,20})\}\s?\{(\d{1,20})\}")
# A part of a year, a year before our era, a century, several years: as spelling.py writes them, equal as texts alone.
_PERIOD = re.compile(r"[QH]\d (?:FY\s?)?\d{4}|\d{1,5} BC|\d{1,2}th century(?: BC)?|\d{2,3}0s", re.IGNORECASE)
# "March 4-6, 2021", "4-6 March 2021".
_TWO_DAYS = r"(?P<first>\d{1,2})(?:th)?\s?[-–—]\s?(?P<last>\d{1,2})(?:th)?"
_DAYS = tuple(
    re.compile(rf"{form}(?:,?\s*{_YEAR})?", re.IGNORECASE)
    for form in (rf"{_NAME}\s*{_TWO_DAYS}", rf"{_TWO_DAYS}\s+{_NAME}")
)
_BETWEEN = re.compile(r"(?:between\s+(.+?)\s+and\s+(.+)|from\s+(.+?)\s+to\s+(.+))", re.IGNORECASE)


@lru_cache(maxsize=4096)
def read(text: str) -> Mark | None:
    """What the whole plain text stands for, or None if it is no date, time, range or code."""
    if len(text) > 100 or not (any(c.isdigit() for c in text) or " to " in text):
        return None
    point = _point(text)
    if point is not None:
        return point
    if _SIGN_OF_RATIO.search(text) and (ratio := _as_ratio(text)) is not None:
        return ratio
    found = _season(text)
    if found is None and quantity.read(text) is not None:
        return None
    found = found or _range(text)
    if found is not None:
        return found
    return ("code", re.sub(r"\s*[-–—]\s*", "-", text).casefold()) if _CODE.fullmatch(text) else None


def same(one: Mark, other: Mark) -> bool:
    """Whether two marks agree; of two ranges, the unit may stand on one side alone."""
    if one[0] == other[0] == "range":
        pairs = list(zip(one[1:], other[1:], strict=True))
        if all(a[0] == b[0] == "number" for a, b in pairs) and any(None in (a[2], b[2]) for a, b in pairs):
            units = {unit for pair in pairs for _, _, unit in pair if unit is not None}
            return not any(unit.share for unit in units) and all(a[1] == b[1] for a, b in pairs)
        if all(a[0] == b[0] == "number" for a, b in pairs):
            return all(a[1] * factor == b[1] for a, b in pairs for factor in list(a[2].ratio(b[2]) or [0])[:1])
    return one == other


def pair(gold: str, answer: str) -> tuple[Mark | None, Mark | None]:
    """What both texts stand for; one may be what alone it is not, because the other is: "3/2" a ratio beside "3:2"."""
    marks = read(gold), read(answer)
    if None in marks and _as_fraction(gold, answer):
        return None, None
    for kind, form in (("ratio", _as_ratio), ("date", _as_date), ("range", _as_range)):
        if any(mark is not None and mark[0] == kind for mark in marks):
            marks = form(gold) or marks[0], form(answer) or marks[1]
    return marks


def _as_fraction(gold: str, answer: str) -> bool:
    """Whether what looks like a month and year is the fraction that the other side names: "1/1000" beside "0.001"."""
    fractions = any("/" in text and _MONTH_YEAR.fullmatch(text) for text in (gold, answer))
    number, other = (quantity.read(text) for text in (gold, answer))
    return fractions and number is not None and other is not None and number.total == other.total


def _as_ratio(text: str) -> Mark | None:
    """The ratio that a text is if it is one: "3:2", "3 to 2", "3/2"."""
    found = _RATIO.fullmatch(text) or _QUOTIENT.fullmatch(text)
    return ("ratio", Fraction(found[1]) / Fraction(found[2])) if found is not None and float(found[2]) else None


def _as_range(text: str) -> Mark | None:
    """The range that an interval is where the other side is a range: "[10, 20]"."""
    found = _INTERVAL.fullmatch(text)
    return _ends(found[1], found[2]) if found is not None else None


def _as_date(text: str) -> Mark | None:
    """The date that eight digits are where the other side is a date: "20210304"."""
    found = _EIGHT_DIGITS.fullmatch(text)
    return _dated(found.groupdict()) if found is not None else None


def _point(text: str) -> Mark | None:
    if _PERIOD.fullmatch(text):
        return ("period", text.casefold())
    text = _WEEKDAY.sub("", text, count=1)
    for form in _NAMED:
        found = form.fullmatch(text)
        if found is not None:
            return _dated(found.groupdict())
    clock = _clock(text)
    if clock is not None:
        return clock
    for form in (_YEAR_MONTH, _MONTH_YEAR):
        found = form.fullmatch(text)
        if found is not None and not (form is _YEAR_MONTH and _follows(found["year"], found["number"])):
            return ("date", int(found["year"]), int(found["number"]), None, None)
    found = _OPEN_ORDER.fullmatch(text)
    return _open_order(found) if found is not None else None


def _follows(year: str, two: str) -> bool:
    """Whether "2011/12" is a season: the second number is the next year's."""
    return (int(year) + 1) % 100 == int(two)


def _dated(parts: dict[str, str | None]) -> Mark | None:
    name, number = parts.get("month"), parts.get("number")
    month = _MONTHS[name.lower()] if name else int(number or 0)
    year, day = (int(parts[key] or 0) if parts.get(key) else None for key in ("year", "day"))
    try:
        date(year or 2000, month, day or 1)
    except ValueError:
        return ("no date", year, month, day)
    return ("date", year, month, day, _clock(parts.get("time") or ""))


def _clock(text: str) -> Mark | None:
    found = _CLOCK.fullmatch(text.strip())
    if found is None:
        return None
    hours, minutes, seconds, half = found.groups()
    on_24 = int(hours) % 12 + 12 * (half.lower() == "p") if half else int(hours)
    try:
        return ("time", time(on_24, int(minutes or 0), int(seconds or 0)).isoformat())
    except ValueError:
        return None


def _open_order(found: re.Match[str]) -> Mark:
    first, second, year = int(found[1]), int(found[3]), int(found[4])
    year += (2000 if year < 70 else 1900) if len(found[4]) == 2 else 0
    for month, day in ((first, second), (second, first)):
        if month <= 12 < day <= 31:
            return ("date", year, month, day, _clock(found["time"] or ""))
    if found[2] == "." and second <= 12:  # with full stops the day is first
        return ("date", year, second, first, _clock(found["time"] or ""))
    if first == second:
        return ("date", year, first, second, _clock(found["time"] or ""))
    return ("open order", year, first, second, _clock(found["time"] or ""))


def _season(text: str) -> Mark | None:
    """Years: "2014-2021", "1990-95", "2020/21"."""
    found = _SEASON.fullmatch(text)
    if found is None or ("/" in text and len(found[2]) == 2 and not _follows(found[1], found[2])):
        return None
    end = found[2] if len(found[2]) == 4 else found[1][:2] + found[2]
    return ("range", ("years", int(found[1])), ("years", int(end)))


def _range(text: str) -> Mark | None:
    between = _BETWEEN.fullmatch(text)
    if between is not None:
        low, high = (part for part in between.groups() if part)
        return _ends(low, high)
    for form in _DAYS:
        if (days := form.fullmatch(text)) is not None:
            first, last = (f"{days['month']} {days[name]} {days['year'] or ''}".strip() for name in ("first", "last"))
            return _ends(first, last)
    for sign in _RANGE.finditer(text):
        if sign.start() and sign.end() < len(text):
            ends = _ends(text[: sign.start()].strip(), text[sign.end() :].strip())
            if ends is not None:
                return ends
    return None


def _ends(low: str, high: str) -> Mark | None:
    if (half := _HALF.search(high)) is not None and _HOUR_ALONE.fullmatch(low):
        low += half[0]  # "9-11 am"
    first, last = _end(low), _end(high)
    if first is None and last is not None and last[0] == "date":
        first = _point(f"{low} {last[1]}")  # "June to August 2020"
    if first is None or last is None:
        return None
    if first[0] == last[0] == "number":
        units = [end[2] for end in (first, last) if end[2] is not None]
        scale = last[3] if first[3] == 1 and (None in (first[2], last[2]) or first[2] == last[2]) else first[3]
        unit = units[-1] if units else None
        first, last = (("number", end[1] * (end[3] if end[3] != 1 else scale), unit) for end in (first, last))
        if unit is None and all(_is_year(end[1]) for end in (first, last)):
            first, last = (("years", int(end[1])) for end in (first, last))
    if first[0] == last[0] == "date" and first[1] is None and first[2:4] != (None, None):
        first = ("date", last[1], *first[2:])  # "March 4 to March 6, 2021"
    return ("range", first, last)


def _is_year(value: Any) -> bool:
    return bool(value.denominator == 1 and 1500 <= value < 2100)


def _end(text: str) -> Mark | None:
    point = _point(text)
    if point is not None:
        return point
    number = quantity.read(text)
    return ("number", number.value, number.unit, number.scale) if number is not None else None
