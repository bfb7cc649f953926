"""Whether the text behind a chosen option of a multiple choice offers a second one, so that none is chosen.

The chosen option's own text ("(D): both (A) and (B)") offers none. Three things decide:
1. its place: a candidate stands where the first one could, at the start of a clause or behind a word that joins or
   weighs ("or", "perhaps", "it is"). What a verb, a noun or a preposition leads to ("rules out (A)", "Plan A") is
   none, nor what a word of reason leads to ("since (A) ...");
2. what is said of it: nothing ("(A), (B)"), that it fits too, or under which circumstances ("(A) in others"). Anything
   else, or a word against it, explains the first option;
3. the options that follow directly share what is said: "(A), (C) and (D) fail".
"""

import re
from collections.abc import Iterator

from golongrl.tasks.words import ALSO, AND, IF, OR, SUPPOSED, WINDOW, WORD, word_set

# What may stand right before a candidate beside these: doubt, a copula, a word that adds or takes back.
_LEADS = word_set(
    "maybe perhaps could may might is s be it so therefore thus hence even likewise no wait mean meant"
    " rather sometimes same 可能 可能是"
    " 也可能是 应该是 是 只是 不对 等等 や"
)
_LAST_WORD = re.compile(r"([^\W\d_]+)[ \t]$")
_BETWEEN = word_set("to through with then vs versus text a")  # two candidates, as the only word
_ANEW = re.compile(
    r"[,;]\s*(?=(?:or|maybe|possibly|perhaps)\b)|可能|\bmy mistake\W+|"
    r"\b(?:i was|that(?:['’]s| is| was)) (?:wrong|incorrect|mistaken)\W+"
)  # what was said of the option before ends
_OPTION_WORD = re.compile(r"^(?:the|an?|option|choice|answer|either|both|right|correct|选项|答案|token)$")
# A word of another reading: what follows is offered for it.
_OTHERWISE = re.compile(
    r"\b(?:otherwise|unless|(?<!nothing )else|sonst|sinon|in which case|failing (?:that|which)|in case i|"
    r"if (?:you|not|need|necessary|pressed|forced)|(?:depending|or) (?:on|in)|"
    r"(?:in|on|under|by) (?:an(?:other|y)?|one|other|some) (?:\w+ )?(?:reading|view|interpretation|sense)s?)\b|否则|"
    rf"\b{IF}\b[^,]{{1,60}}(?:,\s*(?:then\s*)?|\bthen\s*)(?:(?:it|the (?:\w+ )?answer) is\s*)?$",
    re.IGNORECASE,
)
_REASON = re.compile(
    r"\b(?:because|since|as(?! well)|which|whom?|whose|while|whereas|where|than|given|contrast|of|"
    r"(?!according)\w{2,}ing|\w{2,}(?:ed|s):)(?!\w)|因为|由于|而"
)
_THOUGH = re.compile(r"\b(?:though|although|but|yet|还|但|不过)\b")
_BUT = word_set("but yet 但 不过")
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
_SENTENCE_END = re.compile(r"[\n!?。！？]|\.(?=\s|$)")
_ITEM_MARK = re.compile(r"[.)]\s{1,9}(?=\S)")  # behind a letter that opens a line
_CLAUSE = re.compile(r"[^\n.!?。！？;]*(?:\?\s*No\b)?")


def offered(rest: str, chosen: str) -> bool:
    """Whether the text behind the chosen option offers another one as well; the rules are the module's."""
    explained = False
    if _OR_NONE.match(rest) or _TAKES_BOTH.search(rest, 0, WINDOW):
        return True
    rest = rest[_own_text(rest, chosen) :]
    for gap, said, same_sentence in _others(rest, chosen):
        *_, anew = _ANEW.split(gap)
        explained = same_sentence and explained and anew == gap
        gap = anew
        words = [word for word in WORD.findall(gap) if not _OPTION_WORD.match(word)]
        alone = not WORD.search(said)
        joined = not OR.isdisjoint(words[:1]) and words[:2] != ["nor", "is"]
        other_reading = joined or bool(_OTHERWISE.search(gap))
        if _OTHERWISE.match(said) or words[-1:] == ["unless"] or (alone and other_reading) or _SEVERAL_FIT.search(gap):
            return True
        if _AGAINST.search(said) or _AGAINST.search(gap):
            explained = True
            continue
        reason = _REASON.search(gap) is not None and not (gap.rstrip().endswith(",") or _fits_too(said))
        unreal = _UNREAL_CASE.match(gap) is not None and "would" in gap + said
        explained = explained or reason or unreal or bool(SUPPOSED & set(words) and "i" not in words)
        candidate = not explained and (_fits_too(said) or _is_candidate(gap, words))
        if candidate and _offers(gap, words, said, later=not same_sentence):
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
    for one in _OPTION.finditer(rest, 0, WINDOW):
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
    return word in OR | AND | _LEADS or word.endswith("ly") or bool(_THOUGH.fullmatch(word) or ALSO.match(word))


def _lists(gap: str) -> bool:
    """Whether two options with this between them stand side by side."""
    words = {word.lower() for word in WORD.findall(gap)}
    return words <= (OR | AND) and not _SENTENCE_END.search(gap)


def _is_candidate(gap: str, words: list[str]) -> bool:
    """Whether what follows stands where an answer could: where a clause begins, or behind a word that leads to one."""
    leads = gap.rstrip(" ([{")
    if not words or (len(words) == 1 and words[0] in _BETWEEN) or not (leads[-1].isalnum() or leads[-1] in "'’"):
        return True
    return _leads(words[-1])


def _fits_too(said: str) -> bool:
    """Whether it is said to fit beside another one."""
    return _FITS.search(said) is not None and _TOO.search(said) is not None


def _offers(gap: str, words: list[str], said: str, *, later: bool) -> bool:
    if not WORD.search(said) or any(word in OR for word in (*words[:1], *words[-1:])):
        return True
    if _THOUGH.search(gap):  # behind it an option may look plausible without being offered
        return _fits_too(said) or (not _BUT.isdisjoint(words) and _FITS.search(said) is not None)
    if later and _UNREAL.match(said):
        return _AS_WELL.search(said) is not None
    return bool(_FITS_WHOLLY.search(said) if later else _FITS.search(said) or _CIRCUMSTANCE.match(said))


def _named(found: re.Match[str]) -> str:
    return (found[1] or found[2]).upper()
