"""T9: summaries that the authors wrote themselves. Each is taken out of the text and asked for."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from golongrl.data.construct.generators.desk import Desk
from golongrl.data.construct.generators.outline import LEAST_SECTIONS, ContextPart, Outline, is_prose
from golongrl.data.construct.generators.sample import Language, MadeSample, NoSampleError
from golongrl.data.construct.generators.terms import content_words

QUERY_SUMMARY = ("longbench_pro", "T4.2 Query-Focused Summary")
GLOBAL_SUMMARY = ("longbench_pro", "T4.1 Global-Coverage Constrained Summary")
# A lead that can stand for its section, in characters.
_LEAD = {"English": (180, 900), "Chinese": (60, 400)}
# A section that sums the text up.
_WHOLE = {"English": (250, 3000), "Chinese": (80, 1200)}
_NAMED = re.compile(
    r"^[\d. \t]*(?:abstract|(?:executive )?summary|conclusions?|concluding remarks|overview|synopsis"
    r"|摘\s*要|概\s*要|概\s*述|总\s*结|小\s*结|结\s*论|结\s*语|简\s*介)\s*$",
    re.IGNORECASE,
)
# Of what a lead sums up.
_LEAST_PARAGRAPHS = 3
# Share of a lead's words that the rest has.
_COVERED = 0.6
_LEAST_WORDS = 8


def section_lead(desk: Desk) -> MadeSample:
    """The paragraph that opens a section."""
    least, most = _LEAD[desk.outline.lang]
    usable = [
        number
        for number, section in enumerate(desk.sections)
        # A numbered passage is cut by length: its first paragraph is no opening.
        if not desk.outline.numbered
        and len(section.paragraphs) > _LEAST_PARAGRAPHS
        and is_prose(lead := section.paragraphs[0])
        and least <= len(lead) <= most
        and lead[-1] in ".。"
        and desk.outline.context.count(lead) == 1
        and _sums_up(lead, section.paragraphs[1:], desk.outline.lang)
    ]
    number = desk.one(usable, "no section that opens with a paragraph of prose")
    section = desk.sections[number]
    lead, *body = section.paragraphs
    changed = replace(section, paragraphs=tuple(body))
    outline = _without(desk, {number: changed}, [lead])
    question = desk.say(
        f"{desk.where} Sum up the {desk.part} {desk.name(number)} in one paragraph of about {len(lead.split())} words, "
        "as its own opening paragraph would: what it is about and what it says.",
        f"{desk.where}用一段约 {len(lead)} 字的话概括{desk.part}{desk.name(number)}，"
        "如同其开头一段：讲什么、说了什么。",
    )
    return _sample(desk, outline, QUERY_SUMMARY, question, "section-lead", lead, [changed])


def text_lead(desk: Desk) -> MadeSample:
    """The paragraph that opens the whole text, where the context is one document from its beginning."""
    least, most = _LEAD[desk.outline.lang]
    lead = desk.outline.opening
    if not (least <= len(lead) <= most and is_prose(lead) and lead[-1] in ".。"):
        raise NoSampleError("no text that opens with a paragraph of prose", lead[:80])
    place, paragraphs = next(
        (number, one.paragraphs) for number, one in enumerate(desk.sections) if lead in one.paragraphs
    )
    left = tuple(one for one in paragraphs if one is not lead)
    rest = [one for section in desk.sections for one in section.paragraphs if one is not lead]
    if not _sums_up(lead, rest, desk.outline.lang):
        raise NoSampleError("no text that its opening sums up", lead[:80])
    changed = {place: replace(desk.sections[place], paragraphs=left) if left else None}
    outline = _without(desk, changed, [lead])
    question = desk.say(
        f"The paragraph that opens this text was taken out. Write it: sum up the whole text in one paragraph of about "
        f"{len(lead.split())} words, what it is about and what it says.",
        f"这篇文章的开头一段已被去掉。请写出这一段：用约 {len(lead)} 字概括全文讲什么、说了什么。",
    )
    return _sample(desk, outline, GLOBAL_SUMMARY, question, "text-lead", lead, outline.sections[:1])


def named_summary(desk: Desk) -> MadeSample:
    """A whole section that its heading calls a summary, an overview, a conclusion of the text."""
    least, most = _WHOLE[desk.outline.lang]
    usable = [
        number
        for number, section in enumerate(desk.sections)
        if not desk.outline.numbered
        and _NAMED.match(section.label)
        and all(map(is_prose, section.paragraphs))
        and least <= len(section.text) <= most
    ]
    if len(desk.sections) <= LEAST_SECTIONS:
        raise NoSampleError("too few sections", "one of them would be taken out")
    number = desk.one(usable, "no section that sums up the text")
    section = desk.sections[number]
    outline = _without(desk, {number: None}, section.paragraphs)
    gold = " ".join(section.paragraphs) if not desk.chinese else "".join(section.paragraphs)
    name = desk.quoted(section.label)
    neighbours = [one for place, one in enumerate(desk.sections) if abs(place - number) == 1]
    question = desk.say(
        f"The text had a section with the heading {name}, which was taken out. Write it again in about "
        f"{len(gold.split())} words: what the text as a whole is about, and what matters most in it.",
        f"文中原有标题为{name}的一节，已被去掉。请用约 {len(gold)} 字重新写出这一节：全文讲什么，其中最重要的是什么。",
    )
    return _sample(desk, outline, GLOBAL_SUMMARY, question, "named-summary", gold, neighbours)


def _sums_up(lead: str, body: Sequence[str], lang: Language) -> bool:
    """Whether an opening paragraph can be written by somebody who reads only what follows it: most of its words stand
    there, and in several paragraphs. Many openings say what the rest does not."""
    words = content_words(lead, lang)
    where = [words & content_words(paragraph, lang) for paragraph in body]
    told = set().union(*where)
    spread = sum(map(bool, where)) >= _LEAST_PARAGRAPHS
    return spread and len(words) >= _LEAST_WORDS and len(told) >= _COVERED * len(words)


def _without(desk: Desk, changed: Mapping[int, ContextPart | None], removed: Sequence[str]) -> Outline:
    """The outline with other sections in the place of some; None leaves a section out.

    Raises:
        NoSampleError: what was removed stands elsewhere, too.
    """
    sections = [changed.get(number, section) for number, section in enumerate(desk.sections)]
    outline = Outline(
        tuple(one for one in sections if one is not None), desk.outline.lang, numbered=desk.outline.numbered
    )
    if any(piece in outline.context for piece in removed):
        raise NoSampleError("gold not unique", "the summary is still in the text")
    return outline


def _sample(
    desk: Desk, outline: Outline, kind: tuple[str, str], question: str, generator: str, gold: str,
    shown: Sequence[ContextPart],
) -> MadeSample:  # fmt: skip
    # The opening of what the gold sums up; with its label, which occurs once.
    openings = tuple(outline.show(replace(one, paragraphs=one.paragraphs[:3])) for one in shown)
    return Desk(outline, desk.rng).sample("T9", kind, question, generator, golds=(gold,), evidence=openings)
