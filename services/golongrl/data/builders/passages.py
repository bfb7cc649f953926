"""Tasks over the text itself: the next line (T1), multiple choice (T2), shuffled passages (T8), a summary (T9)."""

import re
from collections import Counter
from itertools import pairwise

from golongrl.data.builders.common import ATTEMPTS, Draft, Material, answer_lines, terse_lines
from golongrl.data.corpus import CorpusSection, estimate_tokens

# Words on a line of a terse context.
TERSE_LINE_WORDS = 3
OPTIONS = "ABCD"
# Shuffled passages: few enough that every order is plausible to guess a part of.
TERSE_PASSAGES = 4
FULL_PASSAGES = 6
# A quoted line has at least this many characters, so that it says something.
LEAST_LINE = 24
# Least words of a line that is cut in two halves.
LEAST_CHOICE_WORDS = 6
# A lead paragraph that can stand for its section: prose of some length.
LEAST_LEAD_WORDS = 12
MOST_LEAD_WORDS = 120
# Words of the lead in a terse context.
TERSE_LEAD_WORDS = 5

_SPACES = re.compile(r"\s+")


def next_line(material: Material) -> Draft:
    """T1: the line after a quoted one."""
    if material.style == "terse":
        lines = terse_lines(material.distinct_words(material.word_budget()), TERSE_LINE_WORDS)
        at = material.rng.randrange(len(lines) - 1)
        quoted, gold = lines[at], lines[at + 1]
        return Draft("\n".join(lines), f" after{quoted}", f"{quoted}\n{gold}", gold, golden_label=gold.strip())
    context, lines = _text_lines(material)
    once = _once(lines)
    places = [at for at in range(len(lines) - 1) if lines[at] in once and lines[at + 1] in once]
    if not places:
        raise material.poor("has no two different lines that follow each other")
    at = material.rng.choice(places)
    return Draft(
        context,
        f"Which line of the text comes right after this one?\n{lines[at]}\nGive the line exactly as it stands.",
        f"The line after `{lines[at]}` is `{lines[at + 1]}`.",
        lines[at + 1],
        golden_label=lines[at + 1],
    )


def choice(material: Material) -> Draft:
    """T2: which option completes a line of the text."""
    if material.style == "terse":
        return _terse_choice(material)
    rng = material.rng
    context, lines = _text_lines(material)
    halves = [_halves(line) for line in sorted(_once(lines)) if len(line.split()) >= LEAST_CHOICE_WORDS]
    starts = Counter(start for start, _ in halves)
    usable = [(start, end) for start, end in halves if starts[start] == 1]
    ends = list(dict.fromkeys(end for _, end in usable))
    if len(ends) < len(OPTIONS):
        raise material.poor(f"has fewer than {len(OPTIONS)} different lines of {LEAST_CHOICE_WORDS} words")
    start, end = rng.choice(usable)
    options = [end, *rng.sample([other for other in ends if other != end], len(OPTIONS) - 1)]
    rng.shuffle(options)
    letter = OPTIONS[options.index(end)]
    listed = "\n".join(f"({mark}) {option}" for mark, option in zip(OPTIONS, options, strict=True))
    gold = f"The correct answer is ({letter})"
    return Draft(
        context,
        f"A line of the text begins with `{start}`. Which option completes it?\n{listed}",
        f"The line reads `{start} {end}`.",
        gold,
        golden_label=gold,
    )


def _terse_choice(material: Material) -> Draft:
    """The options are the last words of four lines; the first words of one of them are given."""
    # Each option repeats a word of the context: 4 tokens.
    budget = material.word_budget(4 * len(OPTIONS))
    lines = terse_lines(material.distinct_words(max(len(OPTIONS) * TERSE_LINE_WORDS, budget)), TERSE_LINE_WORDS)
    chosen = material.rng.sample(lines, len(OPTIONS))
    right = material.rng.randrange(len(OPTIONS))
    begin, _, end = chosen[right].rpartition(" ")
    listed = "\n".join(f" {line.split()[-1]} ({mark})" for line, mark in zip(chosen, OPTIONS, strict=True))
    gold = f"The correct answer is ({OPTIONS[right]})"
    think = f"{begin} {end} ({OPTIONS[right]})"
    return Draft("\n".join(lines), f" choose{begin}\n{listed}", think, gold, golden_label=gold)


def order(material: Material) -> Draft:
    """T8: consecutive passages, shuffled. In terse prompts each begins with the last word of the one before it, the
    catchword of old books, and is named by it."""
    if material.style == "terse":
        size = max(1, material.word_budget() // TERSE_PASSAGES - 1)
        words = material.distinct_words(TERSE_PASSAGES * size + 1)
        passages = ["".join(f" {w}" for w in words[i * size : (i + 1) * size + 1]) for i in range(TERSE_PASSAGES)]
        golds = words[: TERSE_PASSAGES * size : size]
        shuffled = [passages[place] for place in _shuffled(material, TERSE_PASSAGES)]
        items = [f" {gold}" for gold in golds]
        return Draft("\n".join(shuffled), f" order {golds[0]}", "", answer_lines(items), doc_ids=tuple(golds))
    paragraphs = _passages(material)
    numbered = _shuffled(material, len(paragraphs))
    labels = {place: f"P{label}" for label, place in enumerate(numbered, start=1)}
    golds = [labels[place] for place in range(len(paragraphs))]
    return Draft(
        "\n\n".join(f"[{labels[place]}]\n{paragraphs[place]}" for place in numbered),
        f"The passages [P1] to [P{len(paragraphs)}] stood one after the other in a text and were shuffled. "
        "Restore their order.",
        "The passages follow each other as " + ", ".join(golds) + ".",
        answer_lines(golds),
        doc_ids=tuple(golds),
    )


def summary(material: Material) -> Draft:
    """T9: the paragraph that opens a section sums it up. Full prompts leave it out of the text; terse ones keep it."""
    if material.style == "terse":
        return _terse_summary(material)
    candidates = [section for section in material.corpus.sections if _lead(section)]
    if not candidates:
        raise material.poor("has no section that opens with a paragraph of prose")
    section = material.rng.choice(candidates)
    lead = _lead(section)
    body = "\n\n".join(section.paragraphs[1:])
    left = material.tokens - estimate_tokens(body)
    others = [p for p in material.run(left) if p not in section.paragraphs] if left > 0 else []
    place = material.rng.randrange(len(others) + 1)
    marked = f"[Section: {section.title}]\n{body}\n[End of section]"
    return Draft(
        "\n\n".join([*others[:place], marked, *others[place:]]),
        f"Summarise the section titled {section.title} in one paragraph, as its own opening would.",
        f"The section is about {section.title}.",
        answer_lines([lead]),
        doc_ids=(lead,),
    )


def _terse_summary(material: Material) -> Draft:
    """Each passage is `Name : lead`, then more words."""
    rng = material.rng
    count = max(2, material.word_budget() // (2 * TERSE_LEAD_WORDS + 3))
    if len(material.corpus.names) < count:
        raise material.poor("has too few frequent words to name passages with")
    titles = rng.sample(material.corpus.names, count)
    size = material.word_budget(4 * count) // count
    blocks: list[str] = []
    leads: list[str] = []
    for title in titles:
        words = [word for word in material.words(max(size, TERSE_LEAD_WORDS)) if word not in titles]
        leads.append("".join(f" {word}" for word in words[:TERSE_LEAD_WORDS]))
        rest = "".join(f" {word}" for word in words[TERSE_LEAD_WORDS:])
        blocks.append(f" {title} :{leads[-1]}" + (f"\n{rest}" if rest else ""))
    at = rng.randrange(count)
    return Draft(
        "\n".join(blocks),
        f" sum {titles[at]}",
        f" {titles[at]}",
        f"[Answer]\n{leads[at]}",
        doc_ids=(leads[at].strip(),),
    )


def _text_lines(material: Material) -> tuple[str, list[str]]:
    """A stretch of text as (context, its non-blank lines stripped and in order)."""
    paragraphs = material.run(material.tokens)
    lines = [_SPACES.sub(" ", line).strip() for paragraph in paragraphs for line in paragraph.split("\n")]
    return "\n\n".join(paragraphs), [line for line in lines if line]


def _once(lines: list[str]) -> set[str]:
    return {line for line, n in Counter(lines).items() if n == 1 and len(line) >= LEAST_LINE}


def _halves(line: str) -> tuple[str, str]:
    words = line.split()
    half = len(words) // 2
    return " ".join(words[:half]), " ".join(words[half:])


def _shuffled(material: Material, count: int) -> list[int]:
    """0 to count - 1 in another order."""
    straight = list(range(count))
    for _ in range(ATTEMPTS):
        shuffled = material.rng.sample(straight, count)
        if shuffled != straight:
            return shuffled
    return straight[::-1]


def _passages(material: Material) -> list[str]:
    """Running text cut into about equal passages at paragraph ends."""
    paragraphs = material.run(material.tokens)
    if len(paragraphs) < 2:
        paragraphs = material.run(min(material.corpus.tokens, 4 * material.tokens))[:FULL_PASSAGES]
    if len(paragraphs) < 2:
        raise material.poor("has no two paragraphs")
    count = min(FULL_PASSAGES, len(paragraphs))
    cuts = [round(i * len(paragraphs) / count) for i in range(count + 1)]
    return ["\n\n".join(paragraphs[a:b]) for a, b in pairwise(cuts)]


def _lead(section: CorpusSection) -> str:
    """The opening paragraph where it is prose that can stand for the rest, else an empty string."""
    if len(section.paragraphs) < 2:
        return ""
    lead = _SPACES.sub(" ", section.paragraphs[0]).strip()
    prose = LEAST_LEAD_WORDS <= len(lead.split()) <= MOST_LEAD_WORDS and lead.endswith(".")
    return lead if prose and not section.paragraphs[0].startswith(" ") else ""
