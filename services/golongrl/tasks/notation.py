"""What a final answer says once its typography is set aside: LaTeX wrappers, spacing, full-width forms, dashes.

`plain` gives the text that two spellings of one answer share; `same_text` compares two such texts. Neither evaluates
anything: that is for quantity.py, dates.py and math-verify.
"""

import re
import unicodedata
from typing import Final

from golongrl.tasks.words import word_set

# A sign of an inequality, as part of a pattern.
RELATION: Final = r"(?:[<>≤≥≠]|!=|\\(?:leq?|geq?|leqslant|geqslant|neq?|lt|gt)(?![a-zA-Z]))"
_SUPERSCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_RAISED = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+")
_VULGAR = re.compile(r"[¼½¾⅐-⅞]")
_DEGREE = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))|\\degree(?![a-zA-Z])|\\circ(?![a-zA-Z])")
# Spaces of LaTeX; "\!" takes space away.
_SPACE = re.compile(
    r"\\[,;:> ]|~|\\(?:quad|qquad|thinspace|enspace|medspace|nobreakspace|hspace\*?\{[^{}]*\})(?![a-zA-Z])"
)
_NOTHING = re.compile(
    r"\\!|\\\\\s*$|\\(?:text|page)?color(?:box)?\s*\{[^{}]*\}|"
    r"\\(?:left|right|displaystyle|textstyle|limits|checkmark|[lL]arge|LARGE|[hH]uge|small|big|Big|bigl|bigr)(?![a-zA-Z])"
)
_WRAPPER = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal|up|md)?|math(?:rm|bf|it|sf|tt|normal)|mbox|hbox|operatorname\*?|emph|bold(?:symbol)?"
    r"|num|unit|underline|bf|rm)\s*\{((?:[^{}]|\{[^{}]*\})*)\}"
)
_DEGREES_OF = re.compile(r"°\s(?=[CF](?![a-zA-Z]))")
_MEASURE = re.compile(r"\\(?:SI|qty)\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_ESCAPED = re.compile(r"\\([$%&#_])")
_FRACTION = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
_OUTER = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("`", "`"), ("'", "'"),
          ("<answer>", "</answer>"))  # fmt: skip
_ENDS = " \t\n\r.。,，;；:："
_MOST_ROUNDS = 8  # wrappers within wrappers; deeper ones stay
_COMMA = re.compile(r"(?<![a-zA-Z])\{,\}")  # LaTeX's comma without a space behind it
_TILDE = re.compile(
    r"(?<=\d)(?:~(?=\d)(?!\d{3}(?!\d))|\s?\\sim\s?(?=\d))"
)  # of a range, not LaTeX's space in a long number


def plain(text: str) -> str:
    """The answer without LaTeX wrappers, with one kind of digits, spaces and signs. Dashes longer than "-" stay."""
    text = _TILDE.sub("–", text.translate(_DIGITS))
    text = text.replace("～", "–").replace("〜", "–")  # which NFKC makes LaTeX's "~", a space
    text = _RAISED.sub(lambda found: f"^{{{found[0].translate(_SUPERSCRIPT)}}}", text)
    text = _VULGAR.sub(lambda found: " " + unicodedata.normalize("NFKC", found[0]).replace("\u2044", "/") + " ", text)
    text = unicodedata.normalize("NFKC", _DEGREE.sub("°", text))
    text = text.translate(_SIGNS).replace("\\mathord{,}", ",")
    text = _COMMA.sub(",", text)
    text = _FRACTION.sub(r"\\frac", _NOTHING.sub("", _SPACE.sub(" ", text)))
    text = _MEASURE.sub(r"\1 \2", text)
    for _ in range(_MOST_ROUNDS):
        text, changed = _WRAPPER.subn(r"\1", text)
        if not changed:
            break
    return _bare(_DEGREES_OF.sub("°", _ESCAPED.sub(r"\1", text)))


class _Digits(dict[int, str]):
    """Decimal digits of every script as ASCII; made on demand."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = str(unicodedata.decimal(character)) if unicodedata.category(character) == "Nd" else character
        return self[code]


_DIGITS = _Digits()
# NFKC leaves these: minus, hyphens, multiplication signs, apostrophes, the soft hyphen and zero-width characters.
_SIGNS = str.maketrans(
    {"−": "-", "‐": "-", "‑": "-", "﹣": "-", "’": "'", "ʼ": "'", "٫": ".", "٬": ",", "·": "\\cdot ", "⋅": "\\cdot ",
     "×": "\\times ", "✕": "\\times ", "π": "\\pi ", "\u00ad": "", "\u200b": "", "\u200c": "",
     "\u200d": "", "\u2060": "", "\ufeff": "", "⁄": "/"}
)  # fmt: skip


def _bare(text: str) -> str:
    """Without the marks around it: dollar signs, bold, one pair of braces, a full stop."""
    for _ in range(_MOST_ROUNDS):
        before = text
        text = text.strip(_ENDS if not text.strip().startswith(".") else " \t\n\r").strip()
        for opening, closing in _OUTER:
            inner = text[len(opening) : -len(closing)]
            if text.startswith(opening) and text.endswith(closing) and len(text) > len(opening + closing):
                if opening[0] not in inner:
                    text = inner
                break
        if text.startswith("{") and text.endswith("}") and not set(text[1:-1]) & set("{}"):
            text = text[1:-1]
        if text == before:
            break
    return " ".join(text.split())


_COMMAND = re.compile(r"\\[a-zA-Z]+")
_WORD = re.compile(r"[a-zA-Z]{3,}")
_MATHS = re.compile(r"[=^+*<>\\|]")
_NO_WORDS = word_set(
    "and for all the when where with such that any real integer integers sin cos tan cot sec csc log"
    " exp max min gcd lcm arcsin arccos arctan sinh cosh tanh det mod lim sup inf sqrt frac cdot"
    " times"
)
_FEW = 3  # words of a formula: "12 metres per second"
_SHORT_WORDS = word_set("no on in up at of or us uk eu un ok")
_INITIALS = re.compile(r"(?:[A-Za-z]{1,3}\.\s?){1,9}[A-Za-z]{0,3}")
_GREEK = re.compile(r"[Α-Ωα-ω]")


def is_words(text: str) -> bool:
    """Whether a plain text is a name or a phrase, which only an equal text answers.

    math-verify reads a word as the product of its letters, so that "silent" equals "listen". Runs of letters in
    alphabetical order ("xyz") may be real products.
    """
    if _MATHS.search(text):
        return False
    if any(ord(c) > 127 and c.isalpha() and not _GREEK.match(c) for c in text):
        return True
    if text.lower() in _SHORT_WORDS or _INITIALS.fullmatch(text):
        return True
    words = [word for word in _WORD.findall(text) if word.lower() not in _NO_WORDS]
    return any(len(word) > 3 or sorted(word) != list(word) for word in map(str.lower, words))


def is_prose(text: str) -> bool:
    """Whether a plain text is a sentence or a phrase: words that are no formula's."""
    return is_words(text) or len([word for word in _WORD.findall(text) if word.lower() not in _NO_WORDS]) > _FEW


def same_text(one: str, other: str) -> bool:
    """Whether two plain texts say the same: equal up to spaces, and up to case where they are words."""
    if one == other:
        return True
    if any(_INITIALS.fullmatch(text) for text in (one, other)):
        one, other = (text.replace(".", "").replace(" ", "").casefold() for text in (one, other))
    a, b = (_folded(text) for text in (one, other))
    return bool(a) and a == b


_INDEX = re.compile(r"_\{?(\d{1,9})\}?")  # "CO_2" is "CO2"
_QUOTES = re.compile(r"[\"“”„«»「」『』《》〈〉]|``|''")
_FULL_STOP = re.compile(r"(?<=[^\W\d_])\.")  # of an abbreviation
_LIST = re.compile(r"\s*(?:、|,|(?<=[\u4e00-\u9fff])[和与及](?=[\u4e00-\u9fff]))\s*|\s+and\s+")


def _folded(text: str) -> str:
    if is_words(text):
        text = _QUOTES.sub("", text.casefold())
        text = _LIST.sub(",", _FULL_STOP.sub("", text)).replace(" to ", "-")
    text = _INDEX.sub(r"\1", text.replace("–", "-").replace("—", "-"))
    # Between digits a space counts: "1 2" is not "12".
    text = re.sub(r"(?<!\d) | (?!\d)", "", text)
    bracketed = text.startswith("(") and text.endswith(")") and not set(text[1:-1]) & set("(),")
    return text[1:-1] if bracketed and (is_words(text) or len(text) == 3) else text
