"""Which option of a multiple choice a text states, for any number of options.

The last statement counts ("The correct answer is (X)", "Answer: X", "答案是X", in any case). Its letter must stand
alone: neither "Apple" nor "A-level" nor "A matter of taste" names option A. What a text only supposes, denies or asks
("if the answer is (A)", "the answer is (A) is wrong", "the answer is (A)?") is no statement, but what only qualifies
the writer ("unless I am wrong") is no doubt of the option. A text without a statement states what it calls right, what
it corrects itself to, or the one option that opens a line of it ("(B)", "B. The river"). Where another option is
offered beside it (second_option.py), it states none.
"""

import re

from golongrl.tasks.second_option import offered
from golongrl.tasks.words import ALSO, AND, ANSWER, DENIED, IF, IS, OR, SUPPOSED, WINDOW, WORD, word_set

_MARKS = str.maketrans({**dict.fromkeys('*_`$"“”「」'), "（": "(", "）": ")", "：": ":", "，": ","})
_AROUND = re.compile(r"</?[a-z]{1,9}>|\\(?=[()\[\]])")  # HTML; the backslash of "\(A\)"
_QUOTED = re.compile(r"['‘’]([A-Za-z])['‘’]")
# Square brackets: prompts that ask for "ANSWER: [LETTER]" are taken at their word.
LETTER = r"(?:[(\[{<]\s{0,3}(?P<bracketed>[A-Za-z])\s{0,3}[)\]}>]|(?P<bare>[A-Za-z])(?![\w'’-]))"
# What qualifies the speaker and not the answer, with the commas or dashes around it.
_ASIDE = re.compile(
    r"(?:,\s|[—–-]\s)?\b(?:(?:unless|if) i(?: a|['’])m (?:not )?(?:wrong|mistaken)|not surprisingly|"
    r"as far as i (?:can (?:see|tell|judge)|know|understand)|in my (?:\w+ )?(?:view|opinion|judge?ment|reading)|"
    r"of course|almost(?= \w+ly)|most likely|"
    r"(?:there is |i have )?(?:no|(?:without|beyond)(?: an?y?)?) doubt(?: that)?|"
    r"(?<=, )i (?:think|believe|guess|suppose)(?=[,.]| [—–-]))(?:,| [—–-](?= ))?",
    re.IGNORECASE,
)
_STATED = re.compile(
    rf"(?:\b(?i:answer|option|choice|(?:correct|right|best) \w{{2,20}}(?=\sis)|{ANSWER})"
    r"(?i:\s(?:correct[ao]|juste))?"
    r"(?i:\shere|\s(?:to|for)\s[^\n.?]{1,60}?)?\s{0,9}"
    rf"(?:(?i:{IS}|=|(?:would|must|should) be)"
    r"\s{0,9}:?(?:,\s[^\n.?()]{1,40},(?=\s))?|:)|"
    r"(?i:final answer)\s|"
    r"(?:答案|(?<!不)选择?(?!项)|选项(?=\s{0,9}[为是应:]))\s{0,9}(?:应?该?[为是选])?\s{0,9}:?|\\boxed\s{0,9}\{)\s{0,9}"
    r"(?:[-–—→]{1,2}\s{1,9})?"
    r"(?:(?i:not)\s{1,9}\(?[A-Z]\)?,?\s{1,9}(?i:but)\s{1,9})?"
    r"(?:(?i:option|choice|one|letter|the|thus|therefore|hence|indeed|first|second|third|fourth|last|then|选项|"
    r"none other than|nothing but|"
    r"(?!un|hard|bare|scarce|suppos|alleg)[a-z]{2,12}ly)(?![a-z])[\s,]{0,9}){0,4}"
    r"(?:\\(?:boxed|text|textbf|mathrm|mathbf)\s{0,9}\{\s{0,9}){0,3}" + LETTER
)
# Without a statement, what the text calls right: "Option C is correct", "(C) is the best answer".
_CALLED_RIGHT = re.compile(
    r"(?:(?:(?i:option|choice)\s{1,9}\(?|(?<=\()|^|\b(?i:so|thus|hence|therefore),?\s)(?P<bracketed>[A-Z])\)?\s{1,9}(?i:is)\s{1,9}(?:(?i:the)\s{1,9})?"
    r"(?i:correct|right|best)|选项\s{0,3}\(?(?P<bare>[A-Z])\)?\s{0,3}是?(?:正确|对的))",
    re.MULTILINE,
)
# And without that, the options that open a line: a letter alone, or with its text behind it.
_OPENS = re.compile(
    r"^[ \t>#-]{0,9}(?:(?i:option|choice|选项)\s{0,3})?(?:"
    r"[(\[{]\s?(?P<bracketed>[A-Za-z])\s?[)\]}](?=[.。]?\s{0,9}$|[ .:、]{1,3}[A-Z\d\u4e00-\u9fff])|"
    r"(?P<bare>[A-Z])(?=\s{0,9}[.。)]?\s{0,9}$|[.):、]\s{0,3}\S))",
    re.MULTILINE,
)
# Where no statement stands, what a correction leads to: "(B)? No, it is (D)".
_CORRECTED = re.compile(r"\b(?i:it(?:['’]s| is| must be)|no,|rather,)\s" + LETTER)
# What takes a statement back: right behind it, or before it in its clause. A later one of another option would win.
_TAKEN_BACK = re.compile(
    r"[)\]}\s]{0,4}(?:\?|(?:[.,]\s(?:which|that|this)['’\s])?(?:is|was|s|seems|would be)\s(?:an? |the |my |\w{1,9}ly )*"
    r"(?:old|former|wrong|false|incorrect|mistaken?|untrue|not (?:right|correct|true|so)|first|what|trap|distractor|"
    r"decoy)\b)|"
    r"[\s)(\[]{0,4}(?:[✗✘❌]|(?:wrong|incorrect|false)[)\]])|"
    r"[)\s]{0,4}(?:does|did)(?:n['’]t| not) (?:fit|work|hold|apply)\b|"
    r"[).,;\s…]{0,9}(?:just kidding|i (?:retract|withdraw) |(?:ignore|disregard) (?:that|this))",
    re.IGNORECASE,
)
_NEGATED = word_set("no not never cannot t")
# What follows an offer of further help is no part of the answer.
_COURTESY = re.compile(
    r"\b(?:let me know|would you like|do you want|(?:i am|i['’]m) happy to|feel free)\b", re.IGNORECASE
)
# Behind "A" as an article; else it goes on with a word that could follow any name.
_NOUN = re.compile(
    r"\s(?!(?:because|since|as|for|and|or|but|(?:al)?though|given|if|unless|i[sn]|was|on|at|by|per|with|without|due|not|rather|"
    r"over|from|so|wh\w+|that|maybe|perhaps|possibly|\w+ly|could|would|may|might|fits|seems|both)\b)[a-z]{2}"
)
_ENDS_HERE = re.compile(r"\s*(?:[.,;:!?)}\]。；、/]|$|\n)")
_BEFORE = 60  # characters before a statement that may take it back
# The condition of a statement; behind a correction it is no other reading.
_CORRECTS = re.compile(r"\b(?:wait|actually|correct(?:ion|ed)|mistake)\b", re.IGNORECASE)
_CONDITION_BEFORE = re.compile(rf"\b(?:{IF}|under)\b[^.;!?\n]*\Z", re.IGNORECASE)
# A statement under a condition of the text, not of its writer ("if I recall correctly").
_SUPPOSITION = re.compile(
    r"(?:(?:\A|[.,;:!?\n—–-])\s*|\b(?:and|but|or|that|then) )(?:if|unless)\b"
    r"(?! (?:i|we|you|one|my|memory|anything|asked|forced|pressed)\b)"
    r"(?:(?!\b(?:so|hence|thus|therefore|because|since)\b)[^.;!?\n。])*\Z|(?:如果|假如|假设|有人|[许很]多人|容易)[^.;!?\n。！？；所因]*\Z",
    re.IGNORECASE,
)
_CONDITION_BEHIND = re.compile(rf"[)\s]{{0,4}},?\s?(?:{IF}|when|under)\b", re.IGNORECASE)
_SENTENCE_UNREAL = re.compile(r"\b(?:if|were|had|without)\b[^.!?\n]*\Z", re.IGNORECASE)
_CLAUSE_END = re.compile(r"[\n.!?。！？;,:—–]|\b(?:so|hence|thus|therefore|but|because)\b")


def plain(text: str) -> str:
    """The text without bold, quotes, dollar signs and tags, with one kind of brackets."""
    return _QUOTED.sub(r"\1", _AROUND.sub("", text.translate(_MARKS)))


def stated(text: str) -> str | None:
    """The option that the last statement of a plain text names; None without one, or with another option offered."""
    text = _ASIDE.sub("", text)
    statements = _statements(_STATED, text) or _statements(_CALLED_RIGHT, text) or _statements(_CORRECTED, text)
    statements = statements or _only(text)
    if not statements:
        return None
    before, last = [None, *statements][-2:]
    assert last is not None
    letter = letter_of(last)
    if before is not None and letter_of(before) != letter:
        if letter == "X":  # the form of the answer is quoted: "I used 'The correct answer is (X)'"
            text, last, letter = text[: last.start()], before, letter_of(before)
        elif _joined(text, before.end(), last.start()) or (
            all(_conditional(text, one) for one in (before, last))
            and not _CORRECTS.search(text, before.end(), last.start())
        ):
            return None
    return None if offered(_COURTESY.split(text[last.end() :])[0], letter) else letter


def _statements(form: re.Pattern[str], text: str) -> list[re.Match[str]]:
    return [
        found
        for found in form.finditer(text)
        if _stands_alone(found, text)
        and not _TAKEN_BACK.match(text, found.end())
        and not _supposes(_words_before(text, found.start()))
        and not _SUPPOSITION.search(text, max(0, found.start() - 2 * _BEFORE), found.start())
        and not ("would" in found[0] and _SENTENCE_UNREAL.search(text, max(0, found.start() - _BEFORE), found.start()))
    ]


def _supposes(words: set[str]) -> bool:
    """Whether words take back what they lead to; "I think" does not, "I don't think" does."""
    return bool(words & (_NEGATED | (DENIED if words & {"i", "we", "me"} else SUPPOSED)))


def _only(text: str) -> list[re.Match[str]]:
    """The last line that an option opens, if all such lines have the same."""
    found = list(_OPENS.finditer(text))
    return found[-1:] if len({letter_of(one) for one in found}) == 1 else []


def letter_of(found: re.Match[str]) -> str:
    """The capital that a match of LETTER names."""
    return (found["bracketed"] or found["bare"]).upper()


def _stands_alone(found: re.Match[str], text: str) -> bool:
    """A letter that may be a word ("the answer is a matter of taste") must end its sentence."""
    bare = found["bare"]
    if bare is None or _ENDS_HERE.match(text, found.end()):
        return True
    return bare.isupper() and bare != "I" and not (bare == "A" and _NOUN.match(text, found.end()))


def _words_before(text: str, start: int) -> set[str]:
    """The words before `start` in its clause."""
    near = _CLAUSE_END.split(text[max(0, start - _BEFORE) : start])[-1]
    return {word.lower() for word in WORD.findall(near)}


def _conditional(text: str, statement: re.Match[str]) -> bool:
    """Whether a statement holds under a condition that its sentence names."""
    before = _CONDITION_BEFORE.search(text, max(0, statement.start() - _BEFORE), statement.start())
    return (before or _CONDITION_BEHIND.match(text, statement.end())) is not None


def _joined(text: str, end: int, start: int) -> bool:
    """Whether the text between two statements leaves both standing."""
    if start - end > WINDOW:
        return False
    words = [word.lower() for word in WORD.findall(text[end:start])]
    together = bool(words) and words[0] in AND
    more = any(word in OR or ALSO.match(word) for word in words) or words[-1:] == ["second"]
    return (together or more) and not _supposes(set(words))
