"""Which option of a multiple choice a text states, for any number of options.

The last statement counts ("The correct answer is (X)", "Answer: X", "答案是X", in any case). Its letter must stand
alone: neither "Apple" nor "A-level" names option A. A statement that a text only supposes or denies ("if the answer is
(A)", "a wrong answer is (A)") is none.

A second option voids the statement only where it is offered too, so that no letter is chosen. That is decided by what
stands between the two letters and behind the second, in this order:
1. "X if ..., otherwise Y" offers Y, and so does "Y for those who ..." or "Y, if you insist";
2. any word between them that is no joining word (`_JOINING`) begins another statement: "(B), since (A) ...";
3. a clause against the second option explains the first: "(B), (A) is wrong";
4. it is offered if nothing but the list is there ("(A), (B)", "(A)/(B)"), if a word of choice or doubt joins them
   ("or", "perhaps"), or if the clause speaks for it ("(B), but (A) is possible").
"""

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MARKS = str.maketrans({**dict.fromkeys('*_`$"“”「」'), "（": "(", "）": ")", "：": ":", "，": ","})
# Square brackets: prompts that ask for "ANSWER: [LETTER]" are taken at their word.
LETTER = r"(?:[(\[]\s{0,3}(?P<bracketed>[A-Za-z])\s{0,3}[)\]]|(?P<bare>[A-Za-z])(?![\w'’-]))"
_STATED = re.compile(
    r"(?:\b(?i:answer|option|choice)\s{0,9}(?:(?i:is|=|would be|must be)\s{0,9}:?|:)|"
    r"(?:答案|选项)\s{0,9}(?:应?该?[为是选])?\s{0,9}:?|\\boxed\s{0,9}\{)\s{0,9}"
    r"(?:(?i:not)\s{1,9}\(?[A-Z]\)?,?\s{1,9}(?i:but)\s{1,9})?"
    r"(?:(?i:option|choice|letter|the|thus|therefore|hence|indeed|(?!un)[a-z]{2,12}ly|选项)[\s,]{0,9}){0,3}"
    r"(?:\\(?:boxed|text|textbf|mathrm|mathbf)\s{0,9}\{\s{0,9}){0,3}" + LETTER
)
# Without a statement, what the text calls right: "Option C is correct", "(C) is the best answer".
_CALLED_RIGHT = re.compile(
    r"(?:(?i:option|choice)\s{1,9}\(?|(?<=\())(?P<bracketed>[A-Z])\)?\s{1,9}(?i:is)\s{1,9}(?:(?i:the)\s{1,9})?"
    r"(?i:correct|right|best)(?P<bare>(?!))?"
)
# Right before a statement, what takes it back; a later one of another option would win otherwise.
_SUPPOSED = _words(
    "if whether unless suppose supposing assume assuming think thinks say says claim claims believe believes wrong"
    " incorrect false tempting not 如果 若 假如"
)
_OTHER = _words("another other second alternative alternate additional")
# Words between two statements that leave both standing: "the answer is (A) or the answer is (B)".
_OR = _words("or nor xor 或 或者 还是 還是 oder ou или または 又は もしくは 또는 혹은")
_DOUBT = _words("maybe possibly perhaps alternatively else could may might 可能 可能是 也可能是")
_JOINING = (
    _OR
    | _DOUBT
    | _words(
        "and also even it be is as well plus both either option options choice answer but though although vs versus"
        " text to failing that again the another other correct right final so along together with in addition followed"
        " by then next equally likewise sometimes lesser extent same token und sowie et y o e и と 과 同 跟 和 及 与"
        " a through 以及 选项 是 也 只是 答案"
    )
    # Words that take the first option back: "(B), no, (A)", "(B)... wait, it is (A)".
    | _words("no wait hmm sorry actually correction scratch edit mean rather i oops や 와 不 不对 等等 应该是")
)
_THOUGH = _words("though although")
_OTHERWISE = _words("otherwise else sonst sinon 否则")
_IF_YOU = re.compile(
    r"\b(?:if|unless)\s+(?:you\s+(?:\w+\s+)?(?:insist|prefer|want|wish|like|must|disagree)(?:\s+(?:on|upon))?"
    r"|need\s+be|necessary|pressed|forced|not)\b",
    re.IGNORECASE,
)
_FOR_SOME = re.compile(
    r"(?:is\s+)?(?:for\s+(?:those|anyone|whoever|people|you|readers|everyone|some|others|the\s+(?:rest|others))|"
    r"(?:if|unless|when|in\s+case)|otherwise|else|as\s+(?:an?\s+)?(?:alternative|backup|second|fallback))\b",
    re.IGNORECASE,
)
_FITS = re.compile(
    r"\b(?:correct|right|true|valid|possible|plausible|acceptable|likely|fits?|appl(?:y|ies)|works?|holds?|both|together)"
    r"\b|正确|对的|都|也", re.IGNORECASE
)  # fmt: skip
_AS_WELL = re.compile(r"\b(?:also|too|as well|equally)\b", re.IGNORECASE)
_AGAINST = re.compile(
    r"\b(?:not|no|never|neither|nor|cannot|wrong|false|incorrect|invalid|impossible|implausible|unlikely|only|fails?|"
    r"contradict\w*|less|rather|instead|too (?:early|late|broad|narrow|vague|small|large|strong|weak))\b|"
    r"n['’]t|不|错|非|没|[✗✘❌×]",
    re.IGNORECASE,
)  # fmt: skip
_OPTION = re.compile(r"\(\s*([A-Z])\s*\)|(?<![\w'’-])([A-HJ-Z])(?![\w'’-])")
_SMALL_OPTION = re.compile(r"\(\s*([a-z])\s*\)()")
_WORD = re.compile(r"[^\W\d_]+")
_CLAUSE = re.compile(r"[^\n.!?。！？]*")
_SENTENCE_ENDS = re.compile(r"[\n.!?。！？]")
_ENDS_HERE = re.compile(r"\s*(?:[.,;:!?)}\]。；、/]|$|\n)")
_WINDOW = 80  # characters behind the chosen option; an alternative stands close
_SHORT = 2  # words: "(A) as well"
_BEFORE = 40  # characters before a statement that may take it back


def plain(text: str) -> str:
    """The text without bold, quotes and dollar signs, with one kind of brackets."""
    return text.translate(_MARKS)


def stated(text: str) -> str | None:
    """The option that the last statement of a plain text names; None without one, or with another option offered."""
    statements = _statements(_STATED, text) or _statements(_CALLED_RIGHT, text)
    if not statements:
        return None
    before, last = [None, *statements][-2:]
    assert last is not None
    letter = letter_of(last)
    if before is not None and letter_of(before) != letter:
        if letter == "X":  # the form of the answer is quoted: "I used 'The correct answer is (X)'"
            last, letter = before, letter_of(before)
        elif _joined(text, before.end(), last.start()):
            return None
    return None if hedged(text[last.end() :], letter) else letter


def _statements(form: re.Pattern[str], text: str) -> list[re.Match[str]]:
    return [
        found
        for found in form.finditer(text)
        if _stands_alone(found, text) and not _SUPPOSED & _words_before(text, found.start(), 4)
    ]


def letter_of(found: re.Match[str]) -> str:
    """The capital that a match of LETTER names."""
    return (found["bracketed"] or found["bare"]).upper()


def _stands_alone(found: re.Match[str], text: str) -> bool:
    """A letter that may be a word ("the answer is a matter of taste") must end its sentence."""
    bare = found["bare"]
    return bare is None or (bare.isupper() and bare != "I") or _ENDS_HERE.match(text, found.end()) is not None


def _words_before(text: str, start: int, most: int) -> set[str]:
    """The last words before `start` in its sentence."""
    near = re.split(r"[\n.!?。！？;]", text[max(0, start - _BEFORE) : start])[-1]
    return {word.lower() for word in _WORD.findall(near)[-most:]}


def _joined(text: str, end: int, start: int) -> bool:
    """Whether the text between two statements leaves both standing."""
    if start - end > _WINDOW:
        return False
    words = {word.lower() for word in _WORD.findall(text[end:start])}
    return bool(words & (_OR | _OTHER) or words & {"also", "alternatively"}) and not words & _SUPPOSED


def hedged(rest: str, chosen: str) -> bool:
    """Whether the text behind the chosen option offers another one as well; the rules are the module's."""
    near = rest[:_WINDOW]
    found = [*_OPTION.finditer(near), *_SMALL_OPTION.finditer(near)]
    other = min((one for one in found if _named(one) != chosen), key=lambda one: one.start(), default=None)
    if other is None:
        return False
    words = [word.lower() for word in _WORD.findall(_IF_YOU.sub(" or ", near[: other.start()])) if word != chosen]
    between = set(words)
    clause = _CLAUSE.match(rest, _end_of_list(rest, other.end()))
    said = clause[0].strip(" ,;)]") if clause else ""
    if (words and words[-1] in _OTHERWISE and not _WORD.search(said)) or said.lower() in _OTHERWISE:
        return True
    if words and words[0] in _OR and not _WORD.search(said) and not _SENTENCE_ENDS.search(near, 0, other.start()):
        return True
    if not between <= _JOINING or _AGAINST.search(said):
        return False
    if between & (_OR | _DOUBT) or _FOR_SOME.match(said):
        return True
    if not _WORD.search(said):
        return not between & (_THOUGH | {"but"})
    as_well, fits = _AS_WELL.search(said), _FITS.search(said)
    if between & _THOUGH:  # behind it an option may look plausible without being offered
        return bool(as_well and fits)
    return bool(fits or (as_well and len(said.split()) <= _SHORT))


def _named(found: re.Match[str]) -> str:
    return (found[1] or found[2]).upper()


def _end_of_list(rest: str, end: int) -> int:
    """Where the options that follow directly end: behind "(C) and (D)" of "(A), (C) and (D) fail"."""
    for _ in range(len("ABCDEFGHIJKLMNOPQRSTUVWXYZ")):
        found = _OPTION.search(rest, end, end + _WINDOW)
        if found is None or not {word.lower() for word in _WORD.findall(rest[end : found.start()])} <= _JOINING:
            break
        end = found.end()
    return end
