"""One spelling for what people write in several: ordinals, numerals, eras, quarters, clock times, signs.

`one_spelling` takes a plain text (notation.py) through `_RULES` in their order. Each rule is (form, replacement) and
keeps the meaning; two texts that differ afterwards may still be equal (dates.py, quantity.py, math-verify). Nothing is
evaluated here but numerals.
"""

import re
from collections.abc import Callable
from types import MappingProxyType

from golongrl.tasks import numerals
from golongrl.tasks.numerals import HAN, HAN_DIGITS, ORDINALS, TENS, han

# What a count in Chinese numerals stands before; elsewhere a numeral may be part of a name.
_COUNTED = "[个個名位口年月日号天岁周元块次条项家座只头件本册章节页季世点时秒]|人(?!民)|分(?!之)|小时|钟头|星期"
_PLACES = MappingProxyType(
    {"ar": "article", "ch": "chapter", "fi": "figure", "p": "page", "pp": "page", "pa": "paragraph", "se": "section",
     "ta": "table", "vo": "volume"}
)  # fmt: skip
_ROMAN = MappingProxyType({"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000})


def _numeral(found: re.Match[str]) -> str:
    value = han(found[0])
    return found[0] if value is None else str(value)


def _decimal(found: re.Match[str]) -> str:
    whole = han(found[1])
    return found[0] if whole is None else f"{whole}.{''.join(str(HAN_DIGITS[c]) for c in found[2])}"


def _tenths(found: re.Match[str]) -> str:
    tens, ones = (int(HAN_DIGITS.get(digit, 5 if digit == "半" else digit or 0)) for digit in found.groups())
    return f"{10 * tens + ones}%"


def _share(found: re.Match[str]) -> str:
    part, whole = (numerals.CARDINALS.get(word.lower(), word) for word in found.groups())
    return f"{part}/{whole}" if str(part)[0].isdigit() and str(whole).isdigit() else found[0]


def _ordinal(found: re.Match[str]) -> str:
    return f"{TENS.get((found['tens'] or '').lower(), 0) + ORDINALS[found['ones'].lower()]}th"


def _mixed(found: re.Match[str]) -> str:
    parts = zip(found.groups(), (10**8, 10**4, 1), strict=True)
    return str(sum(int(digits) * size for digits, size in parts if digits))


def _roman(found: re.Match[str]) -> str:
    values = [_ROMAN[c] for c in found[0]]
    return str(sum(-v if v < after else v for v, after in zip(values, [*values[1:], 0], strict=True)))


def _repeating(found: re.Match[str]) -> str:
    whole, once, again = found[1] or "0", found[2], next(filter(None, found.groups()[2:]))
    under = 10 ** len(once) * (10 ** len(again) - 1)
    return rf"\frac{{{int(whole + once + again) - int(whole + once)}}}{{{under}}}"


def _on_24(found: re.Match[str]) -> str:
    hour = int(found["hour"]) + 12 * (found["half"] in ("下午", "晚上", "傍晚") and int(found["hour"]) < 12)
    return f"{hour}:{30 if found['minute'] == '半' else int(found['minute'] or 0):02}"


def _whole_year(digits: str) -> str:
    return f"{19 + (digits < '70')}{digits}"


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
_PERIODS = tuple(
    (form, _period(letter))
    for letter, word, n, in_han in (
        ("Q", "quarter", "[1-4]", "第?(?P<n>[1-4])季度?"),
        ("H", "half", "[12]", "(?P<n>[上下])半年"),
    )
    for form in (
        rf"^(?:the\s)?(?P<n>{n})(?:th\s{word}|{letter})\s?(?:of\s)?,?\s?{_WHOLE_YEAR}$",
        rf"^{letter}(?P<n>{n})\s?[-/,]?\s?(?:of\s)?{_WHOLE_YEAR}$",
        rf"^{_WHOLE_YEAR}\s?[-/,]?\s?{letter}(?P<n>{n})$",
        rf"^{_WHOLE_YEAR}\s?年?{in_han}$",
    )
)  # fmt: skip
_NTH = r"(?:st|nd|rd|th)"
_Spelling = str | Callable[[re.Match[str]], str]
_FORMS: tuple[tuple[str, _Spelling], ...] = (
    (r"^the\s(?=\w)", ""),
    (r"^(?:[总一]?共(?:计|有)?|合计)\s?(?=\d)", ""),
    # Signs.
    (r"\\Omega(?![a-zA-Z])\s?", "Ω"),
    (r"\\(?:pounds|textsterling)(?![a-zA-Z])\s?", "£"),
    (r"\\(?:text)?euro(?![a-zA-Z])\s?", "€"),
    (r"\\(?:text)?yen(?![a-zA-Z])\s?", "¥"),
    (r"\\mu\s?(?=[mgsLlAVWF]$)", "μ"),
    (r"(?<=[\d)a-z])\s?\*\*\s?(?=[\d({+-])", "^"),
    (r"√\s?(\d{1,20}|[a-z])", r"\\sqrt{\1}"),
    (r"√\s?\(([^()]{1,40})\)", r"\\sqrt{\1}"),
    (r"\\log_(?:e|\{e\})(?![a-z])", r"\\ln "),
    (r"\\langle(?![a-z])(.{1,80})\\rangle(?![a-z])", r"(\1)"),
    (r"∞", r"\\infty "),
    (r"\\frac(?:\s?(\d)|\s([a-z]))\s?([\da-z])(?![a-z\d])", r"\\frac{\1\2}{\3}"),
    (r"^([\d.]{0,20})\s?\*?\s?pi(?=$|/\d)", r"\1\\pi "),
    (r"\\sqrt\s?\{\s?-\s?(\d{1,20})\s?\}", lambda found: "i" if found[1] == "1" else rf"i\sqrt{{{found[1]}}}"),
    (
        r"\\(sin|cos|tan|cot|sec|csc)\s?[({]?\s?(-?\d{1,9}(?:\.\d{1,9})?)\s?°\s?[)}]?",
        r"\\\1(\\frac{\2\\pi}{180})",
    ),
    (r"\\varnothing(?![a-z])|∅|^(?:the )?(?:empty|null) set$|"
     r"^(?:there (?:is|are) )?no (?:real )?solutions?$|^无解$|^空集$", r"\\emptyset"),
    (r"(?<=\w),\s?and\s", ", "),
    (r"(?:≥|\\ge(?:q|qslant)?(?![a-z]))\s?", r"\\geq "),
    (r"(?:≤|\\le(?:q|qslant)?(?![a-z]))\s?", r"\\leq "),
    # Numbers.
    (
        r"(?<![\d.])(\d{0,12})\.(\d{0,12})(?:\\(?:overline|bar|dot)\s?(?:\{(\d{1,12})\}|(\d))|\((\d{1,12})\)(?=%?$))",
        _repeating,
    ),
    (r"(?<![\w.\\])(\d{1,40}(?:\.\d{0,40})?|\.\d{1,40})e([+-]?\d{1,4})(?![\w.])", r"\1\\cdot 10^{\2}"),
    (rf"(第?{HAN})点([零〇一二三四五六七八九]{{1,20}})(?![分钟])", _decimal),
    (rf"(?<=第){HAN}|(?<![\d.]){HAN}(?={_COUNTED})", _numeral),
    (r"(?<![\d.])(?:(\d{1,9})亿)(?:(\d{1,4})万)?(\d{1,4})?(?![\d.万亿])", _mixed),
    (r"(?<![\d.])()(?:(\d{1,9})万)(\d{1,4})(?![\d.万亿])", _mixed),
    (r"^(-?)i\^(?:2|\{2\})$", lambda found: "1" if found[1] else "-1"),
    (r"^百分之(?=\d)([\d.]{1,20})$", r"\1%"),
    (r"^一半$", "1/2"),
    (r"(?<=%) of (?:the |all |its |their )?[a-z ]{3,40}$", ""),
    # A loss in a financial report.
    (r"^\(([$€£¥]\s?\d[^()]{0,30}|\d[\d,.]{0,20}\s?%)\)$|^([$€£¥]\s?)\((\d[\d,.]{0,20})\)$", r"-\1\2\3"),
    (rf"^(\d|[{''.join(HAN_DIGITS)}])成([{''.join(HAN_DIGITS)}半]?)$", _tenths),
    (r"(?<=\d)个(?=小时|钟头|星期)", ""),
    (r"(?<=\d)个?半(?=小时|钟头|星期)", ".5"),
    (r"(?<=\d)(个)半(?=月)|(?<=\d)(年|天|岁|周|小时|分钟|个月)半$", r".5\1\2"),
    (r"^半个?(?=小时|钟头|星期|年|天|分钟)|^半(?=个月)", "0.5"),
    (r"^(\d{1,3})\s?['′]\s?(\d{1,2})\s?(?:\"|″|''|′′)$", r"\1 ft \2 in"),
    (r"^([\d.]{1,9})\s?(?:\"|″|''|′′)$", r"\1 in"),
    (r"^([\d.]{1,9})\s?['′]$", r"\1 ft"),
    (r"^(\d{1,9}(?:\.\d{1,9})?|[a-z]{3,9}) (?:out of|in) (?:every )?(\d{1,9}|[a-z]{3,9})$", _share),
    *((rf"^(?:{words_})\s?(?=[\d$€£])", sign) for sign, words_ in _WORDS_BEFORE.items()),
    *((rf"^(?:an? )?([\d.,]{{1,20}}%?)(?:{words_})$", rf"{sign}\1") for sign, words_ in _WORDS_BEHIND.items()),
    (r"^twice$", "2 times"),
    (r"^thrice$", "3 times"),
    (r"^(\d{1,9})[\s-]?fold$", r"\1 times"),
    (r"^half an?\s(?=[a-z])", "0.5 "),
    (r"^(art|chap|ch|fig|para|pp?|sec|tab|vol)\.?\s?(?=\d)", lambda found: f"{_PLACES[found[1].lower()[:2]]} "),
    (r"^fiscal year\s(?=\d)", "FY"),
    (r"\bFY\s?'?(\d\d)(?![\d/–-])", lambda found: f"FY{_whole_year(found[1])}"),
    (r"^an?\s+(?=(?:hundred|thousand|million|billion|trillion|dozen)\b)", "one "),
    (r"^an?\s+(?=(?:century|decade|year|month|week|day|hour)\b)", "1 "),
    (
        # Of the larger signs only four together are surely no size, unit or word.
        r"^(?=[IVX]{2,8}$|[IVXLCDM]{4,15}$)M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})$",
        lambda found: _roman(found) if found[0].isupper() else found[0],
    ),
    # Ordinals: "12th" for all, and so that "12" can equal it.
    (rf"(?<![\da-z])(?<!\d\s)(?<![a-z]-)(?<!\bone\s)(?<!\ba\s)(?<!\bper\s)(?:(?P<tens>{'|'.join(TENS)})[\s-])?(?P<ones>{'|'.join(ORDINALS)})(?![a-z])",
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
    (r"(?<=\w)\s?(?:in total|altogether|左右)$", ""),
    *_PERIODS,
    # Days and times.
    (r"^(?:in|on|at(?!\s(?:least|most))|during)\s(?=\S)", ""),
    (r"^(?:the\s)?year\s(?=\d)", ""),
    (r"(?<=[a-z])\sthe\s(?=\d{1,2}th\b)", " "),
    (r"^(?=.*[a-z])(\d{1,2}|[a-z]{3,9})[-–/](\d{1,2}|[a-z]{3,9})[-–/](\d{4})$", r"\1 \2 \3"),
    (
        r"^(\d{1,2})[-–/]([a-z]{3})[-–/](\d\d)$",
        lambda found: f"{found[1]} {found[2]} {_whole_year(found[3])}",
    ),
    (r"^(\d{1,2})h(\d{2})$|^(\d{1,2})[.:](\d{2}) Uhr$", lambda found: ":".join(filter(None, found.groups()))),
    (r"^(\d{1,2}) (?:o'clock|Uhr)$", r"\1:00"),
    (
        r"^(?P<half>上午|下午|晚上|傍晚|早上|凌晨)?(?P<hour>\d{1,2})(?(half)[时点:]|[时点])(?P<minute>\d{1,2}(?=分?$)|半)?分?整?$",
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
