"""Tasks over records strewn in text: filter (T3), count and sum (T4), table rows (T5), final state (T6), ranking (T7).

A record has a group, a name and a value; names are words of the corpus and distinct within a prompt.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from golongrl.data.builders.common import Draft, Material, answer_lines, scatter, terse_lines

GROUPS = ("red", "blue", "green", "black", "white", "brown")
# Share of a terse context that is records; the rest is running text to look past.
TERSE_RECORD_SHARE = 0.6
TERSE_VALUES = range(1, 31)
FULL_VALUES = range(10, 1_000)
FULL_FORM = "Record: NAME is in group GROUP and has value N."
# Tokens of one record with its line end, for sizing.
TERSE_RECORD_TOKENS = 5
TERSE_ROW_TOKENS = 9
FULL_RECORD_TOKENS = 18
# Most records of a full prompt, however long: the text grows, the needles do not.
FULL_RECORDS = 40
# Words a line of running text has in a terse context.
TERSE_LINE_WORDS = 4


@dataclass(frozen=True, slots=True)
class Record:
    """One needle."""

    group: str
    name: str
    value: int


def filter_items(material: Material) -> Draft:
    """T3: the names of every record of a group, in the order of the text."""
    records, group = _grouped(material, most=3, least=2)
    names = [record.name for record in records if record.group == group]
    if material.style == "terse":
        context = _terse_context(material, [f" {record.group} {record.name}" for record in records])
        items = [f" {name}" for name in names]
        return Draft(context, f" all {group}", f" {group}", answer_lines(items), doc_ids=tuple(names))
    return Draft(
        _full_context(material, [_sentence(record) for record in records]),
        f"Records of the form `{FULL_FORM}` stand in the text. List the names of all records whose group is {group}.",
        f"The records of group {group} are {', '.join(names)}.",
        answer_lines(names),
        doc_ids=tuple(names),
    )


def count(material: Material) -> Draft:
    """T4: how many records a group has; in full prompts also the sum of their values."""
    records, group = _grouped(material, most=4, least=1)
    found = [record for record in records if record.group == group]
    if material.style == "terse":
        context = _terse_context(material, [f" {record.group} {record.name}" for record in records])
        tally = "".join(f" {record.name}:{number}" for number, record in enumerate(found, start=1))
        return Draft(context, f" count {group}", tally, f"\\boxed{{{len(found)}}}", golden_label=str(len(found)))
    by_value = material.rng.random() < 0.5
    gold = sum(record.value for record in found) if by_value else len(found)
    asked = "What is the sum of the values of all records" if by_value else "How many records are there"
    work = " + ".join(str(record.value if by_value else 1) for record in found)
    return Draft(
        _full_context(material, [_sentence(record) for record in records]),
        f"Records of the form `{FULL_FORM}` stand in the text. {asked} whose group is {group}?",
        f"{work} = {gold}",
        f"\\boxed{{{gold}}}",
        golden_label=str(gold),
    )


def table_rows(material: Material) -> Draft:
    """T5: the rows of a group from tables strewn in the text, as JSON."""
    records, group = _grouped(material, most=2, least=1, record_tokens=TERSE_ROW_TOKENS)
    rows: list[list[str | int]] = [[record.group, record.name, record.value] for record in records]
    wanted = [row for row in rows if row[0] == group]
    gold = json.dumps({"data": wanted})
    if material.style == "terse":
        context = _terse_context(material, [json.dumps(row) for row in rows])
        return Draft(context, f'rows "{group}"', f'"{group}"', f"<answer>{gold}</answer>", golden_label=gold)
    half = len(rows) // 2
    tables = ["\n".join(["| group | name | value |", "|---|---|---|", *map(_table_line, part)])
              for part in (rows[:half], rows[half:]) if part]  # fmt: skip
    return Draft(
        _full_context(material, tables),
        f"The text holds tables with the columns group, name and value. Extract every row whose group is {group}, "
        "from all tables, as [group, name, value].",
        f"The rows of group {group} are those of {', '.join(str(row[1]) for row in wanted)}.",
        f"<answer>{gold}</answer>",
        golden_label=gold,
    )


def final_state(material: Material) -> Draft:
    """T6: variables are set again and again; their last values."""
    rng = material.rng
    asked = 2 if material.style == "terse" else 4
    total = max(asked + 2, _room(material, TERSE_RECORD_TOKENS))
    names = _names(material, max(asked, total // 2))
    settings = [(name, rng.choice(_values(material))) for name in names]
    settings += [(rng.choice(names), rng.choice(_values(material))) for _ in range(total - len(names))]
    rng.shuffle(settings)
    state = dict(settings)
    wanted = rng.sample(names, asked)
    if material.style == "terse":
        golds = [f"{name} = {state[name]}" for name in wanted]
        context = _terse_context(material, [f" {name} = {value}" for name, value in settings])
        items = [f" {gold}" for gold in golds]
        question = " last" + "".join(f" {name}" for name in wanted)
        return Draft(context, question, "", answer_lines(items), doc_ids=tuple(golds))
    golds = [f"{name} = {state[name]}" for name in wanted]
    return Draft(
        _full_context(material, [f"Update: {name} = {value}" for name, value in settings]),
        "Lines of the form `Update: name = value` stand in the text; a later one replaces an earlier one. "
        f"Give the final values of {', '.join(wanted)}, each as `name = value`.",
        "The last updates are " + ", ".join(golds) + ".",
        answer_lines(golds),
        doc_ids=tuple(golds),
    )


def ranking(material: Material) -> Draft:
    """T7: the names of all records, the largest value first."""
    rng = material.rng
    amount = rng.randint(3, 4) if material.style == "terse" else min(12, max(4, _room(material, TERSE_RECORD_TOKENS)))
    names = _names(material, amount)
    values = rng.sample(_values(material), amount)
    records = [Record("", name, value) for name, value in zip(names, values, strict=True)]
    best = sorted(records, key=lambda record: -record.value)
    if material.style == "terse":
        context = _terse_context(material, [f" {record.value} {record.name}" for record in records])
        walk = "".join(f" {record.value} {record.name}" for record in best)
        items = [f" {record.name}" for record in best]
        return Draft(context, " rank", walk, answer_lines(items), doc_ids=tuple(record.name for record in best))
    return Draft(
        _full_context(material, [f"Score: {record.name} has {record.value} points." for record in records]),
        "Lines of the form `Score: name has N points.` stand in the text. "
        "List all names from the most points to the fewest.",
        ", ".join(f"{record.name} {record.value}" for record in best),
        answer_lines([record.name for record in best]),
        doc_ids=tuple(record.name for record in best),
    )


def _room(material: Material, terse_tokens: int) -> int:
    if material.style == "terse":
        return max(4, int(material.tokens * TERSE_RECORD_SHARE) // terse_tokens)
    return min(FULL_RECORDS, max(6, material.tokens // (2 * FULL_RECORD_TOKENS)))


def _values(material: Material) -> Sequence[int]:
    return TERSE_VALUES if material.style == "terse" else FULL_VALUES


def _names(material: Material, amount: int) -> list[str]:
    """Distinct names: single words where there are enough, else pairs of words."""
    words = material.corpus.names
    if len(words) < 2:
        raise material.poor("has too few frequent words to name records with")
    if amount <= len(words) // 2 and material.style == "terse":
        return material.rng.sample(words, amount)
    chosen: dict[str, None] = {}
    if amount > len(words) * (len(words) - 1) // 2:
        raise material.poor(f"has too few frequent words to name {amount} records with")
    while len(chosen) < amount:
        chosen["-".join(material.rng.sample(words, 2))] = None
    return list(chosen)


def _grouped(
    material: Material, *, most: int, least: int, record_tokens: int = TERSE_RECORD_TOKENS
) -> tuple[list[Record], str]:
    """Records and the group asked about, which has between `least` and `most` of them."""
    rng = material.rng
    total = max(most + 2, _room(material, record_tokens))
    group, *others = rng.sample(GROUPS, len(GROUPS))
    matching = rng.randint(least, most if material.style == "terse" else most * 2)
    groups = [group] * matching + [rng.choice(others) for _ in range(total - matching)]
    rng.shuffle(groups)
    names = _names(material, total)
    return [Record(g, name, rng.choice(_values(material))) for g, name in zip(groups, names, strict=True)], group


def _sentence(record: Record) -> str:
    return f"Record: {record.name} is in group {record.group} and has value {record.value}."


def _table_line(row: list[str | int]) -> str:
    return "| " + " | ".join(map(str, row)) + " |"


def _terse_context(material: Material, needles: list[str]) -> str:
    left = material.tokens - sum(len(needle.split()) + needle.count('"') + 1 for needle in needles)
    reserved = {word for needle in needles for word in needle.replace('"', " ").replace(",", " ").split()}
    words = [word for word in material.words(material.word_budget(material.tokens - left)) if word not in reserved]
    return "\n".join(scatter(material.rng, terse_lines(words, TERSE_LINE_WORDS), needles))


def _full_context(material: Material, needles: list[str]) -> str:
    left = material.tokens - FULL_RECORD_TOKENS * sum(needle.count("\n") + 1 for needle in needles)
    paragraphs = material.run(left) if left > 0 else []
    return "\n\n".join(scatter(material.rng, paragraphs, needles))
