"""One spelling for what people write in several: ordinals, numerals, eras, quarters, clock times, signs.

`one_spelling` takes a plain text (notation.py) through `_RULES` in their order. Each rule is (form, replacement) and
keeps the meaning; two texts that differ afterwards may still be equal (dates.py, quantity.py, math-verify). Nothing is
evaluated here but numerals.
"""

import re
from collections.abc import Callable
from types import MappingProxyType

from golongrl.tasks.words import words

_ORDINALS = MappingProxyType(
    {
        word: i
        for i, word in enumerate(
            words(
                "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth"
                " fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth twentieth"
            ),
            1,
        )
    }
    | {"thirtieth": 30, "fortieth": 40, "fiftieth": 50, "sixtieth": 60, "seventieth": 70, "eightieth": 80}
    | {"ninetieth": 90, "hundredth": 100}
)
_TENS = MappingProxyType(
    {word: 10 * i for i, word in enumerate(words("twenty thirty forty fifty sixty seventy eighty ninety"), 2)}
)
_HAN_DIGITS = MappingProxyType(
    {c: i for i, c in enumerate("零一二三四五六七八九")}
    | {"〇": 0, "两": 2, "兩": 2}
    | {c: i for i, c in enumerate("壹贰叁肆伍陆柒捌玖", 1)}
)
_HAN_UNITS = MappingProxyType({"十": 10, "百": 100, "千": 1000, "拾": 10, "佰": 100, "仟": 1000})
_HAN_LARGE = MappingProxyType({"万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8})
HAN = rf"[{''.join([*_HAN_DIGITS, *_HAN_UNITS, *_HAN_LARGE])}]{{1,20}}"
# What a count in Chinese numerals stands before; elsewhere a numeral may be part of a name.
_COUNTED = "[个個名位口年月日号天岁周元块次条项家座只头件本册章节页季世点时秒]|人(?!民)|分(?!之)|小时|钟头|星期"
_PLACES = MappingProxyType(
    {"ar": "article", "ch": "chapter", "fi": "figure", "p": "page", "pp": "page", "pa": "paragraph", "se": "section",
     "ta": "table", "vo": "volume"}
)  # fmt: skip
_ROMAN = MappingProxyType({"I": 1, "V": 5, "X": 10})


def han(text: str) -> int | None:
    """The value of a Chinese numeral: digits ("二〇二一") or with units ("三百五" is 350)."""
    if all(c in _HAN_DIGITS for c in text):
        return int("".join(str(_HAN_DIGITS[c]) for c in text))
    total = section = digit = last = 0
    for c in text:
        if c in _HAN_DIGITS:
            digit, last = _HAN_DIGITS[c], last if _HAN_DIGITS[c] else 0
        elif c in _HAN_UNITS:
            section, digit, last = section + (digit or (1 if not section else 0)) * _HAN_UNITS[c], 0, _HAN_UNITS[c]
        else:
            total, section, digit, last = (total + section + digit) * _HAN_LARGE[c], 0, 0, _HAN_LARGE[c]
    # A last digit right behind a unit counts tenths of it, unless a zero stands between.
    return total + section + digit * (last // 10 if last > 10 and text[-1] in _HAN_DIGITS else 1) or None


def _numeral(found: re.Match[str]) -> str:
    value = han(found[0])
    return found[0] if value is None else str(value)


def _decimal(found: re.Match[str]) -> str:
    whole = han(found[1])
    return found[0] if whole is None else f"{whole}.{''.join(str(_HAN_DIGITS[c]) for c in found[2])}"


def _tenths(found: re.Match[str]) -> str:
    tens, ones = (int(_HAN_DIGITS.get(digit, 5 if digit == "半" else digit or 0)) for digit in found.groups())
    return f"{10 * tens + ones}%"


def _ordinal(found: re.Match[str]) -> str:
    return f"{_TENS.get((found['tens'] or '').lower(), 0) + _ORDINALS[found['ones'].lower()]}th"


def _mixed(found: re.Match[str]) -> str:
    parts = zip(found.groups(), (10**8, 10**4, 1), strict=True)
    return str(sum(int(digits) * size for digits, size in parts if digits))


def _roman(found: re.Match[str]) -> str:
    values = [_ROMAN[c] for c in found[0]]
    return str(sum(-v if v < after else v for v, after in zip(values, [*values[1:], 0], strict=True)))


def _on_24(found: re.Match[str]) -> str:
    hour = int(found["hour"]) + 12 * (found["half"] in ("下午", "晚上", "傍晚") and int(found["hour"]) < 12)
    return f"{hour}:{30 if found['minute'] == '半' else int(found['minute'] or 0):02}"


def _period(letter: str) -> Callable[[re.Match[str]], str]:
    def spell(found: re.Match[str]) -> str:
        number = {"first": "1", "second": "2", "上": "1", "下": "2"}.get(found["n"].lower(), found["n"])
        return f"{letter}{number} {found['fy'] or ''}{found['year']}"

    return spell


# Words in front of a number or behind it, and the sign that says the same. A fall is a number below zero.
_RISE, _FALL = "increase|rise|growth|gain", "decrease|drop|decline|fall|reduction|loss"
_WORDS_BEFORE = {
    "": "exactly|precisely|only|just|all|a total of|in total|人民币|"
    rf"(?:an? )?(?:{_RISE}|increased|rose|grew) (?:of|by)|up(?= [\d.]{{1,9}}\s?%$)|(?:增长|上升|增加)了?",
    "-": rf"(?:an? )?(?:{_FALL}|decreased|dropped|declined|fell) (?:of|by)|down(?= [\d.]{{1,9}}\s?%$)|"
    "(?:下降|减少|降低)了?",
    "> ": "(?:more|greater|larger|higher) than|over|above|exceeding|超过|多于|大于",
    "< ": "(?:less|fewer|smaller|lower) than|under|below|少于|低于|小于",
    r"\\geq ": "at least|no (?:less|fewer) than|(?:a )?minimum(?: of)?|至少|不少于|不低于",
    r"\\leq ": "at most|no more than|up to|(?:a )?maximum(?: of)?|至多|最多|不超过",
}
_WORDS_BEHIND = {
    "": rf"(?<=%) ?(?:{_RISE})",
    "-": rf"(?<=%) ?(?:{_FALL})",
    r"\\geq ": r"\s?\+|以上| or (?:more|older|above|over|higher|greater)",
    r"\\leq ": " or (?:less|fewer|younger|below|under|lower)",
}
_WHOLE_YEAR = r"(?P<fy>FY\s?)?'?(?P<year>\d{4})"
_NTH = r"(?:st|nd|rd|th)"
_Spelling = str | Callable[[re.Match[str]], str]
_FORMS: tuple[tuple[str, _Spelling], ...] = (
    (r"^the\s(?=\w)", ""),
    (r"^(?:[总一]?共(?:计|有)?|合计)\s?(?=\d)", ""),
    # Signs.
    (r"\\mu\s?(?=[mgsLlAVWF]$)", "μ"),
    (r"(?<=[\d)a-z])\s?\*\*\s?(?=[\d({+-])", "^"),
    (r"√\s?(\d{1,20}|[a-z])", r"\\sqrt{\1}"),
    (r"√\s?\(([^()]{1,40})\)", r"\\sqrt{\1}"),
    (r"∞", r"\\infty "),
    (r"(?:≥|\\ge(?:q|qslant)?(?![a-z]))\s?", r"\\geq "),
    (r"(?:≤|\\le(?:q|qslant)?(?![a-z]))\s?", r"\\leq "),
    # Numbers.
    (rf"(第?{HAN})点([零〇一二三四五六七八九]{{1,20}})(?![分钟])", _decimal),
    (rf"(?<=第){HAN}|(?<![\d.]){HAN}(?={_COUNTED})", _numeral),
    (r"(?<![\d.])(?:(\d{1,9})亿)(?:(\d{1,4})万)?(\d{1,4})?(?![\d.万亿])", _mixed),
    (r"(?<![\d.])()(?:(\d{1,9})万)(\d{1,4})(?![\d.万亿])", _mixed),
    (r"^(-?)i\^(?:2|\{2\})$", lambda found: "1" if found[1] else "-1"),
    (r"^百分之(?=\d)([\d.]{1,20})$", r"\1%"),
    (r"^一半$", "1/2"),
    (rf"^(\d|[{''.join(_HAN_DIGITS)}])成([{''.join(_HAN_DIGITS)}半]?)$", _tenths),
    (r"(?<=\d)个(?=小时|钟头|星期)", ""),
    (r"(?<=\d)个?半(?=小时|钟头|星期)", ".5"),
    (r"(?<=\d)(个)半(?=月)|(?<=\d)(年|天|岁|周|小时|分钟|个月)半$", r".5\1\2"),
    (r"^半个?(?=小时|钟头|星期|年|天|分钟)|^半(?=个月)", "0.5"),
    (r"^(\d{1,3})\s?['′]\s?(\d{1,2})\s?(?:\"|″|''|′′)$", r"\1 ft \2 in"),
    (r"^([\d.]{1,9})\s?(?:\"|″|''|′′)$", r"\1 in"),
    (r"^([\d.]{1,9})\s?['′]$", r"\1 ft"),
    (r"^(\d{1,9}) out of (\d{1,9})$", r"\1/\2"),
    *((rf"^(?:{words_})\s?(?=[\d$€£])", sign) for sign, words_ in _WORDS_BEFORE.items()),
    *((rf"^([\d.,]{{1,20}}%?)(?:{words_})$", rf"{sign}\1") for sign, words_ in _WORDS_BEHIND.items()),
    (r"^twice$", "2 times"),
    (r"^thrice$", "3 times"),
    (r"^(\d{1,9})[\s-]?fold$", r"\1 times"),
    (r"^half an?\s(?=[a-z])", "0.5 "),
    (r"^(art|chap|ch|fig|para|pp?|sec|tab|vol)\.?\s?(?=\d)", lambda found: f"{_PLACES[found[1].lower()[:2]]} "),
    (r"^fiscal year\s(?=\d)", "FY"),
    (r"^an?\s+(?=(?:hundred|thousand|million|billion|trillion|dozen)\b)", "1 "),
    (r"^an?\s+(?=(?:century|decade|year|month|week|day|hour)\b)", "1 "),
    (r"^(?=[IVX]{2,8}$)X{0,3}(?:IX|IV|V?I{0,3})$", lambda found: _roman(found) if found[0].isupper() else found[0]),
    # Ordinals: "12th" for all, and so that "12" can equal it.
    (rf"(?<![\da-z])(?<!\d\s)(?<![a-z]-)(?<!\bone\s)(?<!\ba\s)(?<!\bper\s)(?:(?P<tens>{'|'.join(_TENS)})[\s-])?(?P<ones>{'|'.join(_ORDINALS)})(?![a-z])",
     _ordinal),
    (rf"(?<=\d){_NTH}(?![a-z])", "th"),
    (r"(?<=\dth) place$", ""),
    (r"^第\s?(\d{1,9})[名位]?$", r"\1th"),
    (r"^(?:No\.?|Nr\.?|number|#)\s?(?=\d)", "#"),
    # Years and their parts.
    (r"(?<=[\dy]\s)(?:B\.\s?C\.\s?E\.?|B\.\s?C\.|BCE)(?![a-z])", "BC"),
    (r"^公元前\s?(\d{1,5})\s?年?$", r"\1 BC"),
    (r"^(\d{1,5})\s?(?:B\.\s?C\.\s?E\.?|B\.\s?C\.?|BCE?)$", r"\1 BC"),
    (r"^(?:公元\s?|(?:A\.D\.|AD|CE)\s?)(\d{1,4})\s?年?$|^(\d{1,4})\s?(?:A\.\s?D\.?|AD|C\.\s?E\.?|CE)$", r"\1\2"),
    (r"^(?:the\s)?(\d{2,3}0)'?s$|^(\d{3}0)年代$", r"\1\2s"),
    (r"^(?:the\s)?(\d{1,2})th\s?century$|^(\d{1,2})\s?世纪$", r"\1\2th century"),
    (rf"^(?:the\s)?(?P<n>[1-4])(?:th\squarter|Q)\s?(?:of\s)?,?\s?{_WHOLE_YEAR}$", _period("Q")),
    (rf"^Q(?P<n>[1-4])\s?[-/,]?\s?(?:of\s)?{_WHOLE_YEAR}$", _period("Q")),
    (rf"^{_WHOLE_YEAR}\s?[-/,]?\s?(?:Q(?P<n>[1-4]))$", _period("Q")),
    (rf"^{_WHOLE_YEAR}\s?年?第?(?P<n>[1-4])季度?$", _period("Q")),
    (rf"^(?:the\s)?(?P<n>1|2)(?:th)\shalf\s(?:of\s)?{_WHOLE_YEAR}$", _period("H")),
    (rf"^(?:H(?P<n>[12]))\s?[-/,]?\s?{_WHOLE_YEAR}$", _period("H")),
    (rf"^{_WHOLE_YEAR}\s?[-/,]?\s?H(?P<n>[12])$", _period("H")),
    (rf"^{_WHOLE_YEAR}\s?年?(?P<n>[上下])半年$", _period("H")),
    # Days and times.
    (r"^(?:in|on|at(?!\s(?:least|most))|during)\s(?=\S)", ""),
    (r"^(?:the\s)?year\s(?=\d)", ""),
    (r"(?<=[a-z])\sthe\s(?=\d{1,2}th\b)", " "),
    (r"^(\d{1,2})[-–]([a-z]{3,9})[-–](\d{4})$", r"\1 \2 \3"),
    (r"^(\d{4})\s?[-–]\s?(\d{2})\s?[-–]\s?(\d{2})$", r"\1-\2-\3"),
    (r"^(\d{1,2})h(\d{2})$", r"\1:\2"),
    (
        r"^(?P<half>上午|下午|晚上|傍晚|早上|凌晨)?(?P<hour>\d{1,2})[时点](?P<minute>\d{1,2}(?=分?$)|半)?分?整?$",
        _on_24,
    ),
    (r"(?:星期|礼拜|周)(?=[一二三四五六日天]$)", "周"),
    (r"(?<=\d)年(?=\s?[-–—~至到])|(?<=[-–—~至到]\d{4})年$", ""),
)  # fmt: skip
_RULES = tuple((re.compile(form, re.IGNORECASE), spelling) for form, spelling in _FORMS)


def one_spelling(text: str) -> str:
    """The text in one spelling."""
    for form, spelling in _RULES:
        text = form.sub(spelling, text)
    return text.strip()
