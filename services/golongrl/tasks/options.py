"""Which option of a multiple choice a text states, for any number of options.

The last statement counts ("The correct answer is (X)", "Answer: X", "答案是X", in any case). Its letter must stand
alone: neither "Apple" nor "A-level" nor "A matter of taste" names option A. What a text only supposes, denies or asks
("if the answer is (A)", "the answer is (A) is wrong", "the answer is (A)?") is no statement, but what only qualifies
the writer ("unless I am wrong") is no doubt of the option. A text without a statement states what it calls right, what
it corrects itself to, or the one option that opens a line of it ("(B)", "B. The river").

A second option voids the statement where it is offered too, so that no letter is chosen. The chosen option's own text
("(D): both (A) and (B)") offers none. Three things decide:
1. its place: a candidate stands where the first one could, at the start of a clause or behind a word that joins or
   weighs ("or", "perhaps", "it is"). What a verb, a noun or a preposition leads to ("rules out (A)", "Plan A") is
   none, nor what a word of reason leads to ("since (A) ...");
2. what is said of it: nothing ("(A), (B)"), that it fits too, or under which circumstances ("(A) in others"). Anything
   else, or a word against it, explains the first option;
3. the options that follow directly share what is said: "(A), (C) and (D) fail".
"""

import re
from collections.abc import Iterator

from golongrl.tasks.words import ANSWER, IS


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


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
_NEGATED = _words("no not never cannot t")
_DENIED = _words("if whether unless wrong incorrect false tempting doubt refuse hardly few 如果 若 假如")
_SUPPOSED = _DENIED | _words("suppose supposing assume assuming think thinks say says claim claims believe believes")
_OR = _words(
    "or nor xor aka oder ou eller lub veya atau ili nebo vagy hoặc или أو या"
    " 或 或者 还是 還是 または 又は もしくは 또는 혹은"
)
_AND = _words("and plus und sowie et y o e и 와 と 과 同 跟 和 及 与 以及 也")
_ALSO = re.compile(r"^(?:also|alternat\w*|another|other|third|next|additional(?:ly)?|else|otherwise)$")
# What may stand right before a candidate beside these: doubt, a copula, a word that adds or takes back.
_LEADS = _words(
    "maybe perhaps could may might is s be it so therefore thus hence even likewise no wait mean meant"
    " rather sometimes same 可能 可能是"
    " 也可能是 应该是 是 只是 不对 等等 や"
)
_LAST_WORD = re.compile(r"([^\W\d_]+)[ \t]$")
_BETWEEN = _words("to through with then vs versus text a")  # two candidates, as the only word
_ANEW = re.compile(
    r"[,;]\s*(?=(?:or|maybe|possibly|perhaps)\b)|可能|\bmy mistake\W+|"
    r"\b(?:i was|that(?:['’]s| is| was)) (?:wrong|incorrect|mistaken)\W+"
)  # what was said of the option before ends
_OPTION_WORD = re.compile(r"^(?:the|an?|option|choice|answer|either|both|right|correct|选项|答案|token)$")
_IF = "(?:if|should|assuming|supposing)"
# A word of another reading: what follows is offered for it.
_OTHERWISE = re.compile(
    r"\b(?:otherwise|unless|(?<!nothing )else|sonst|sinon|in which case|failing (?:that|which)|in case i|"
    r"if (?:you|not|need|necessary|pressed|forced)|(?:depending|or) (?:on|in)|"
    r"(?:in|on|under|by) (?:an(?:other|y)?|one|other|some) (?:\w+ )?(?:reading|view|interpretation|sense)s?)\b|否则|"
    rf"\b{_IF}\b[^,]{{1,60}}(?:,\s*(?:then\s*)?|\bthen\s*)(?:(?:it|the (?:\w+ )?answer) is\s*)?$",
    re.IGNORECASE,
)
_REASON = re.compile(
    r"\b(?:because|since|as(?! well)|which|whom?|whose|while|whereas|where|than|given|contrast|of|"
    r"(?!according)\w{2,}ing|\w{2,}(?:ed|s):)(?!\w)|因为|由于|而"
)
_THOUGH = re.compile(r"\b(?:though|although|but|yet|还|但|不过)\b")
_BUT = _words("but yet 但 不过")
# What leads to another choice of the writer, or puts an option beside the one before.
_ADDS = re.compile(
    r"\b(?:(?:i|my \w+|let['’]?s)\b(?:(?!\b(?:not|never|first)\b|n['’]t)[^.;,:()\n]){0,30}?"
    r"\b(?:go(?:ing)? (?:with|for)|pick|choose|select|says?|take|answer(?! to)|accept|prefer|favou?r|believe|"
    r"consider|bet on|vote for|settle on|argue (?:for|that))(?: that)?(?: it(?: i|['’])s)?|"
    r"(?:could|can|might|may)(?: also)? (?:(?:argue|make a case|opt) for|argue that|choose|pick|select)|"
    r"(?:lean|leaning|tend|inclined) (?:to|towards?)(?: say)?|going with|settle (?:on|for)|"
    r"(?:change|revise|switch|move|correct)(?:e?d)?(?: my \w+)? to|(?:torn|toss-?up|tied?) (?:between|with)|"
    r"make (?:that|it)|(?:runner|back)-?up(?: is)?|(?:close )?second(?: (?:best|place))?(?: is)?|"
    r"as well as|along with|alongside|together with|combin\w+ with|in addition to|\d\s?% (?:on|for|to)|followed by|"
    r"a\.k\.a\.?|as much as|no less than|a case for|"
    r"(?:(?:which|that) is )?(?:(?:the )?same (?:as|for|goes for)|equivalent to|identical to)|reading gives|"
    r"(?:(?:on|upon|after|in) (?:a |my |the )?(?:further |closer |second |more )*"
    r"(?:reflection|thoughts?|look|review|inspection|(?:re)?checking|fact|hindsight|retrospect|consideration)|"
    r"(?:having )?re-?(?:read|check|think|consider|examin)\w*(?: [^,.:()]{1,30})?[,:]),?)(?!\w)",
    re.IGNORECASE,
)
_NOT = r"(?:\b(?:not|cannot|never)|n['’]t) (?:\w{1,12}ly )?(?:be )?(?:\w{1,12}ly )?"
# Words against an option that are denied themselves.
_NOT_AGAINST = re.compile(
    _NOT
    + r"(?:sure|certain)\b(?! (?:about|of|why|how))|\bunsure\b|"
    + _NOT
    + r"(?:(?:rule|exclude|dismiss|reject)\w*(?: out)?|impossible|wrong|incorrect|false|implausible|invalid|"
    r"unreasonable)(?: either| \w{1,12}ly)?(?!\w)"
)
# What is said of an option and tells nothing of it.
_IDLE = re.compile(
    _NOT + r"(?:decide|tell|say|choose|determine)\b(?! (?:about|of|why|how))|\bhard to (?:say|tell)|"
    r"\bunclear|^(?:but|and) (?:\w+ly )?not\b.*|\b(?:though|anyway|however|after all|actually|now|still|here)$|^it is$|"
    r"^(?:also|too|as well|equally)$|^(?:if|when|in case)\b.*"
)
_OR_NONE = re.compile(r"\W*or (?:\w+ly |perhaps |maybe )?(?:not|both|all|any|none|nothing|neither|something|another)\b")
_TAKES_BOTH = re.compile(r"\bi (?:\w+ )?(?:accept|take|pick|choose) (?:both|either)\b", re.IGNORECASE)
# The text of the chosen option, right behind it: "(D): both (A) and (B)", "(D) A and B".
_LETTERS = r"(?:(?:\s?[,/&]\s?|\s)(?:(?:and|or|nor|&)\s)?\(?[A-Z]\b\)?){1,9}"
_OWN_TEXT = re.compile(
    r"(?:\s?[:(—–-]{1,3}\s?|,?\s{1,3})(?:(?:that is|i\.e\.),?\s)?(?i:both|either|neither|all|none)\b[^.;\n()]{0,30}?"
    rf"(?:i\.e\.)?{_LETTERS}|(?::\s?(?=\(?[A-Z])|(?=\s[A-Z]\b[^\n.]{{0,9}}\b[A-Z]\b)){_LETTERS}"
)
# What follows an offer of further help is no part of the answer.
_COURTESY = re.compile(
    r"\b(?:let me know|would you like|do you want|(?:i am|i['’]m) happy to|feel free)\b", re.IGNORECASE
)
_CIRCUMSTANCE = re.compile(
    r"(?:is\s+)?(?:today|tomorrow|later|elsewhere|sometimes|for|if|unless|when|in|on|with|at|as|depending|under|according|otherwise|else)\b|"
    r"\d+(?:\.\d+)?\s?%|[(\[](?:\w{1,12}:? )?\d",
    re.IGNORECASE,
)
_FITS = re.compile(
    r"\b(?:correct|right|true|valid|possibl[ey]|alternative|plausible|acceptable|arg(?:ued|uable)|defen(?:ded|sible)|likely|fits?|appl(?:y|ies)|works?|"
    r"holds?|or both|maybe|perhaps|equally|better|the (?:one|answer)|as (?:good|valid)|has merit|"
    r"(?:would|will)(?: also)? do)\b|正确|对的|都|也",
    re.IGNORECASE,
)
_SEVERAL_FIT = re.compile(r"\b(?:two|three|several|multiple|all of them)\b[^.]{0,30}\b(?:correct|right|valid)\b")
# What a later sentence must end with to offer its option: it may be right in part.
_FITS_WHOLLY = re.compile(
    rf"(?:{_FITS.pattern})(?: (?:better|too|as well|also|answer|choice|option))?$|equally \w+$|^(?:is )?\d+%",
    re.IGNORECASE,
)
_AS_WELL = re.compile(r"\b(?:also|too|as well|equally)\b", re.IGNORECASE)
_TOO = re.compile(rf"{_AS_WELL.pattern}|\bas \w+$|\b(?:may|might|could) (?:well )?be\b", re.IGNORECASE)
_UNREAL_CASE = re.compile(r"\W*(?:without|had|were|but for)\b")  # opens a sentence: "Without clause 3, it would be"
_UNREAL = re.compile(r"(?:would(?: have)? be(?:en)?|was|were|had been)\b")
_AGAINST = re.compile(
    r"\b(?:not|no(?!\s*[,.:;!—–-]| wait)|never(?! mind)|neither|nor|cannot|wrong|false|incorrect|invalid|impossible|"
    r"implausible|unlikely|trap|distractor|decoy|mistake|"
    r"partly|partially|only|fails?|contradict\w*|less(?!,|\s+likely)|instead|unlike|rather than|"
    r"formerly|previously|originally|initially|too (?:early|late|broad|narrow|vague|small|large|strong|weak))\b|"
    r"n['’]t|不(?!对|过)|错|非|没|矛盾|[✗✘❌×≠]",
    re.IGNORECASE,
)
_OPTION = re.compile(r"\(\s*([A-Za-z])\s*\)|(?<![a-zA-Z0-9_'’-])([A-HJ-Z])(?![a-zA-Z0-9_'’-])")
_WORD = re.compile(r"[^\W\d_]+")
_SENTENCE_END = re.compile(r"[\n!?。！？]|\.(?=\s|$)")
_ITEM_MARK = re.compile(r"[.)]\s{1,9}(?=\S)")  # behind a letter that opens a line
_CLAUSE = re.compile(r"[^\n.!?。！？;]*(?:\?\s*No\b)?")
# Behind "A" as an article; else it goes on with a word that could follow any name.
_NOUN = re.compile(
    r"\s(?!(?:because|since|as|for|and|or|but|(?:al)?though|given|if|unless|i[sn]|was|on|at|by|per|with|without|due|not|rather|"
    r"over|from|so|wh\w+|that|maybe|perhaps|possibly|\w+ly|could|would|may|might|fits|seems|both)\b)[a-z]{2}"
)
_ENDS_HERE = re.compile(r"\s*(?:[.,;:!?)}\]。；、/]|$|\n)")
_WINDOW = 400  # characters behind the chosen option; an alternative stands close
_BEFORE = 60  # characters before a statement that may take it back
# The condition of a statement; behind a correction it is no other reading.
_CORRECTS = re.compile(r"\b(?:wait|actually|correct(?:ion|ed)|mistake)\b", re.IGNORECASE)
_CONDITION_BEFORE = re.compile(rf"\b(?:{_IF}|under)\b[^.;!?\n]*\Z", re.IGNORECASE)
# A statement under a condition of the text, not of its writer ("if I recall correctly").
_SUPPOSITION = re.compile(
    r"(?:(?:\A|[.,;:!?\n—–-])\s*|\b(?:and|but|or|that|then) )(?:if|unless)\b"
    r"(?! (?:i|we|you|one|my|memory|anything|asked|forced|pressed)\b)"
    r"(?:(?!\b(?:so|hence|thus|therefore|because|since)\b)[^.;!?\n。])*\Z|(?:如果|假如|假设|有人|[许很]多人|容易)[^.;!?\n。！？；所因]*\Z",
    re.IGNORECASE,
)
_CONDITION_BEHIND = re.compile(rf"[)\s]{{0,4}},?\s?(?:{_IF}|when|under)\b", re.IGNORECASE)
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
    return None if hedged(_COURTESY.split(text[last.end() :])[0], letter) else letter


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
    return bool(words & (_NEGATED | (_DENIED if words & {"i", "we", "me"} else _SUPPOSED)))


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
    return {word.lower() for word in _WORD.findall(near)}


def _conditional(text: str, statement: re.Match[str]) -> bool:
    """Whether a statement holds under a condition that its sentence names."""
    before = _CONDITION_BEFORE.search(text, max(0, statement.start() - _BEFORE), statement.start())
    return (before or _CONDITION_BEHIND.match(text, statement.end())) is not None


def _joined(text: str, end: int, start: int) -> bool:
    """Whether the text between two statements leaves both standing."""
    if start - end > _WINDOW:
        return False
    words = [word.lower() for word in _WORD.findall(text[end:start])]
    together = bool(words) and words[0] in _AND
    more = any(word in _OR or _ALSO.match(word) for word in words) or words[-1:] == ["second"]
    return (together or more) and not _supposes(set(words))


def hedged(rest: str, chosen: str) -> bool:
    """Whether the text behind the chosen option offers another one as well; the rules are the module's."""
    explained = False
    if _OR_NONE.match(rest) or _TAKES_BOTH.search(rest, 0, _WINDOW):
        return True
    rest = rest[_own_text(rest, chosen) :]
    for gap, said, same_sentence in _others(rest, chosen):
        *_, anew = _ANEW.split(gap)
        explained = same_sentence and explained and anew == gap
        gap = anew
        words = [word for word in _WORD.findall(gap) if not _OPTION_WORD.match(word)]
        alone = not _WORD.search(said)
        joined = not _OR.isdisjoint(words[:1]) and words[:2] != ["nor", "is"]
        other_reading = joined or bool(_OTHERWISE.search(gap))
        if _OTHERWISE.match(said) or words[-1:] == ["unless"] or (alone and other_reading) or _SEVERAL_FIT.search(gap):
            return True
        if _AGAINST.search(said) or _AGAINST.search(gap):
            explained = True
            continue
        reason = _REASON.search(gap) is not None and not (gap.rstrip().endswith(",") or _fits_too(said))
        unreal = _UNREAL_CASE.match(gap) is not None and "would" in gap + said
        explained = explained or reason or unreal or bool(_SUPPOSED & set(words) and "i" not in words)
        candidate = not explained and (_fits_too(said) or _is_candidate(gap, words))
        if candidate and _offered(gap, words, said, later=not same_sentence):
            return True
    return False


def _own_text(rest: str, chosen: str) -> int:
    """Where the chosen option's own text ends, if it names other options."""
    own = _OWN_TEXT.match(rest)
    if own is None or _AS_WELL.search(_SENTENCE_END.split(rest, maxsplit=1)[0]):
        return 0
    return 0 if chosen in {_named(one) for one in _OPTION.finditer(own[0])} else own.end()


def _others(rest: str, chosen: str) -> Iterator[tuple[str, str, bool]]:
    """For each other option near the chosen one: what stands before and behind it in its sentence, lower-cased, and
    whether it stands in the sentence of the one before. Of options side by side only the first is told.
    """
    found: list[re.Match[str]] = []
    named = -1  # where a name ended, whose list goes on: "all of A, B and C"
    for one in _OPTION.finditer(rest, 0, _WINDOW):
        if _in_a_name(rest, one) or (named >= 0 and one[2] and _lists(rest[named : one.start()])):
            named = one.end()
        else:
            found.append(one)
    end, i = 0, 0
    while i < len(found):
        first, last = found[i], found[i]
        while i + 1 < len(found) and _lists(rest[last.end() : found[i + 1].start()]):
            i, last = i + 1, found[i + 1]
        i += 1
        gap, end = rest[end : first.start()], last.end()
        mark = _ITEM_MARK.match(rest, end) if gap.rstrip(" -*>").endswith("\n") else None
        clause = _CLAUSE.match(rest, mark.end() if mark is not None else end)
        if {_named(one) for one in found if first.start() <= one.start() <= last.start()} == {chosen}:
            continue
        sentences = _SENTENCE_END.split(gap)
        said = _NOT_AGAINST.sub(" possible", clause[0].strip(" ,:)]}-—–").lower()) if clause else ""
        gap = _NOT_AGAINST.sub(" possibly", _ADDS.sub("and", sentences[-1].lower()))
        yield gap, _IDLE.sub("", said), len(sentences) == 1


def _in_a_name(rest: str, found: re.Match[str]) -> bool:
    """Whether a bare letter ends a name: "Plan A"."""
    word = _LAST_WORD.search(rest, 0, found.start())
    if not found[2] or word is None or word[1].lower() in _BETWEEN:
        return False
    return not (_leads(word[1].lower()) or _OPTION_WORD.match(word[1].lower()))


def _leads(word: str) -> bool:
    return word in _OR | _AND | _LEADS or word.endswith("ly") or bool(_THOUGH.fullmatch(word) or _ALSO.match(word))


def _lists(gap: str) -> bool:
    """Whether two options with this between them stand side by side."""
    words = {word.lower() for word in _WORD.findall(gap)}
    return words <= (_OR | _AND) and not _SENTENCE_END.search(gap)


def _is_candidate(gap: str, words: list[str]) -> bool:
    """Whether what follows stands where an answer could: where a clause begins, or behind a word that leads to one."""
    leads = gap.rstrip(" ([{")
    if not words or (len(words) == 1 and words[0] in _BETWEEN) or not (leads[-1].isalnum() or leads[-1] in "'’"):
        return True
    return _leads(words[-1])


def _fits_too(said: str) -> bool:
    """Whether it is said to fit beside another one."""
    return _FITS.search(said) is not None and _TOO.search(said) is not None


def _offered(gap: str, words: list[str], said: str, *, later: bool) -> bool:
    if not _WORD.search(said) or any(word in _OR for word in (*words[:1], *words[-1:])):
        return True
    if _THOUGH.search(gap):  # behind it an option may look plausible without being offered
        return _fits_too(said) or (not _BUT.isdisjoint(words) and _FITS.search(said) is not None)
    if later and _UNREAL.match(said):
        return _AS_WELL.search(said) is not None
    return bool(_FITS_WHOLLY.search(said) if later else _FITS.search(said) or _CIRCUMSTANCE.match(said))


def _named(found: re.Match[str]) -> str:
    return (found[1] or found[2]).upper()
