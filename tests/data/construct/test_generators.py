"""Questions about documents: golds that score 1.0, evidence that is there, answers that a second count confirms."""

import difflib
import json
import random
import re
from collections import Counter
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golongrl.data.construct.generate_models import PASS_THRESHOLDS
from golongrl.data.construct.generators import (
    GENERATORS,
    Document,
    MadeSample,
    NoSampleError,
    checked,
    counting,
    generate,
    paths,
    retrieval,
    sequence,
    summaries,
    tables,
    versions,
)
from golongrl.data.construct.generators.desk import Desk, Generator
from golongrl.data.construct.generators.guesses import best_guess
from golongrl.data.construct.generators.outline import outline, sentences_of, unwrapped
from golongrl.data.construct.generators.retrieval import NUMBER
from golongrl.data.construct.generators.terms import evidence, mentions, terms
from golongrl.data.corpus import estimate_tokens
from golongrl.tasks import score
from golongrl.tasks.gold import gold_response
from support.construction import chinese_sections, english_sections
from support.documents import documents

LANGUAGES = ("English", "Chinese")
MOST = 3000


def sample_of(task: str, lang: str, seed: int) -> MadeSample:
    return generate(task, documents(lang, seed % 5, headings=seed % 3 > 0), lang, seed, MOST)  # type: ignore[arg-type]


@pytest.mark.parametrize(("task", "lang"), list(product(GENERATORS, LANGUAGES)))
def test_every_type_has_samples_in_both_languages(task, lang):
    made = []
    for seed in range(6):
        try:
            made.append(sample_of(task, lang, seed))
        except NoSampleError:
            continue
    assert made
    for sample in made:
        assert (sample.task, sample.lang) == (task, lang)
        assert re.search("[\u4e00-\u9fff]", sample.question) if lang == "Chinese" else sample.question.isascii()


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(GENERATORS)), st.sampled_from(LANGUAGES), st.integers(0, 10_000))
def test_what_holds_for_every_sample(task, lang, seed):
    try:
        sample = sample_of(task, lang, seed)
    except NoSampleError:
        return
    extra = {"reward_mode": sample.reward_mode}
    gold = gold_response(sample.data_source, sample.ground_truth(), extra)
    outcome = score(sample.data_source, gold, sample.ground_truth(), extra, "strict")
    assert outcome.score == pytest.approx(1.0, abs=1e-6)
    assert outcome.task == task
    assert sample == sample_of(task, lang, seed)  # the same seed makes the same sample
    assert sample.evidence
    for passage in sample.evidence:
        assert sample.context.count(passage) == 1  # so that its position is the evidence's
    assert estimate_tokens(sample.context) <= MOST
    wrong = score(sample.data_source, "</think>nothing of the kind", sample.ground_truth(), extra, "strict")
    assert wrong.score is not None
    assert wrong.score < 0.2


def desk_of(lang: str, seed: int, *, headings: bool = True) -> Desk:

    return Desk(
        outline(documents(lang, seed, headings=headings), lang, MOST, estimate_tokens, 0.0), random.Random(seed)
    )


@pytest.mark.parametrize("headings", [True, False])
@pytest.mark.parametrize("lang", LANGUAGES)
def test_counts_are_what_a_person_finds(lang, headings):
    desk = desk_of(lang, 1, headings=headings)
    found = terms(desk.outline)
    assert len(found) > 8
    for term in found:
        again = mentions(desk.outline, term.word)
        assert again.counts == term.counts
        text = desk.outline.context
        plain = len(re.findall(rf"\b{term.word}\b", text, re.I)) if lang == "English" else text.count(term.word)
        assert term.total == plain


def test_a_word_whose_count_could_be_argued_about_is_not_asked_about():
    part = "## Part {0}\n\nThe keeper's lamp and the 'lantern' of part {0} are a co-owned treasure of the harbour."
    text = "\n\n".join(part.format(i) for i in range(1, 6))
    shown = outline([Document("d", text)], "English", MOST, estimate_tokens, 0.0)
    found = {term.word: term.total for term in terms(shown)}
    assert found == {"lantern": 5, "treasure": 5, "harbour": 5}


def test_a_number_is_confirmed_by_counting_again():
    for seed in range(12):
        sample = sample_of("T4", "English", seed)
        words = re.findall(r"`([A-Za-z]+)`", sample.question)
        count = Counter(re.findall(r"[a-z]+", sample.context.lower()))
        if sample.generator == "times":
            assert int(sample.answer) == count[words[0].lower()]
        elif sample.generator == "difference":
            assert int(sample.answer) == count[words[0].lower()] - count[words[1].lower()]


def test_a_ranking_has_no_tie():
    for seed in range(20):
        try:
            sample = sample_of("T7", "English", seed)
        except NoSampleError:
            continue
        if sample.generator == "rank-words":
            counts = [len(re.findall(rf"\b{word}\b", sample.context, re.I)) for word in sample.golds]
            assert counts == sorted(set(counts), reverse=True)
        elif sample.generator == "rank-sections":
            (word,) = re.findall(r"`([A-Za-z]+)`", sample.question)
            mark = r"^(?:## )?(\[\d+\]|Part \d+)\n" if "[" in sample.golds[0] else r"^## (Part \d+)\n"
            parts = re.split(mark, sample.context, flags=re.M)
            found = {parts[i]: len(re.findall(rf"\b{word}\b", parts[i + 1], re.I)) for i in range(1, len(parts), 2)}
            ranked = [found[label] for label in sample.golds]
            assert ranked == sorted(set(ranked), reverse=True)
            assert all(count < ranked[-1] for label, count in found.items() if label not in sample.golds)


def test_rows_of_a_table_are_asked_about():
    rows = []
    for seed in range(30):
        sample = sample_of("T5", "English", seed)
        if sample.generator == "table-query":
            rows.append(json.loads(sample.answer)["data"])
            assert "ship, cargo, tons" in sample.question
            for row, line in zip(rows[-1], sample.evidence, strict=True):
                assert all(cell in line for cell in row)
    assert rows
    assert all(len(some) >= 2 for some in rows)


def test_a_table_without_a_rule_is_a_table_too():
    (document,) = documents("Chinese", 1)
    text = document.text.replace("|---|---|---|\n", "")
    found = [generate("T5", [Document("港口志", text)], "Chinese", seed, MOST) for seed in range(12)]
    (sample, *_) = [one for one in found if one.generator == "table-query"]
    assert "姓名, 货物, 数量" in sample.question


@pytest.mark.parametrize(
    ("sentence", "number"),
    [
        ("The fee was raised by 12 percent in that long and stormy year.", "12"),
        ("The program gs(1) joins two documents into one that can be printed.", None),
        ("In that year a single ship of the line came into the harbour with 3 masts.", None),
        ("The office paid 1,250 crowns for the lantern of the new lighthouse.", "1,250"),
        ("The channel is 3.75 fathoms deep at the place where the rope was let down.", "3.75"),
        ("Version v12 of the chart was drawn by hand, and nobody has seen it since.", None),
        ("这座灯塔在那一年的冬天里一共烧掉了400桶油。", "400"),
    ],
)
def test_which_numbers_leave_a_gap(sentence, number):
    found = [match[0] for match in NUMBER.finditer(sentence)]
    assert found == ([] if number is None else [number])


def test_a_summary_is_not_left_in_the_text():
    for lang in LANGUAGES:
        sample = sample_of("T9", lang, 1)
        assert sample.golds[0] not in sample.context


def test_documents_with_too_little_text_yield_none():
    with pytest.raises(NoSampleError) as caught:
        generate("T1", [Document("note", "One line.")], "English", 1, MOST)
    assert caught.value.reason == "too few sections"


def test_a_word_with_one_count_everywhere_gives_no_ranking():
    text = "\n\n".join(f"## Part {i}\n\nThe keeper saw the harbour in year {1870 + i}." for i in range(1, 9))
    with pytest.raises(NoSampleError) as caught:
        generate("T7", [Document("d", text)], "English", 1, MOST)
    assert caught.value.reason in ("tie in a ranking", "too few words with different counts")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"evidence": ("not there",)}, "evidence not in the context"),
        ({"question": "Is it 1871?", "answer": "1871"}, "answer in the question"),
        ({"answer": " "}, "gold does not score 1.0"),
    ],
)
def test_a_gate_names_its_reason(change, reason):
    from dataclasses import replace

    sample = MadeSample("T1", "English", "EM", "EM", "opened in 1871", "When?", "g", ("opened in 1871",), answer="1871")
    assert checked(sample) is sample
    with pytest.raises(NoSampleError) as caught:
        checked(replace(sample, **change))
    assert caught.value.reason == reason


def test_golds_that_repeat_are_refused():
    sample = MadeSample(
        "T3", "English", "longbench_pro", "T6.2 Targeted Subset Cluster Identification", "c", "q", "g", (),
        golds=("A", "a "),
    )  # fmt: skip
    with pytest.raises(NoSampleError, match="gold not unique"):
        checked(sample)


def test_a_line_that_repeats_is_shown_with_its_neighbours():
    part = "## Part {0}\n\nKeeper of year {0}.\n\n| note |\n| the tariff |\n| row {0} |"
    text = "\n\n".join(part.format(i) for i in range(1, 6))
    shown = outline([Document("d", text)], "English", MOST, estimate_tokens, 0.0)
    passages = evidence(shown, "tariff", [0, 3])
    assert [shown.context.count(passage) for passage in passages] == [1, 1]
    assert "| row 4 |" in passages[1]


def test_prose_is_unwrapped_and_code_is_not():
    wrapped = "The harbour office kept a register of every vessel and its pseudo-\ncompiled list of goods."
    assert unwrapped(wrapped, "English") == wrapped.replace("-\n", "-")
    code = "if x:\n    return 1"
    assert unwrapped(code, "English") == code
    assert unwrapped("　　港务局成立于某年，\n负责登记船只。", "Chinese") == "港务局成立于某年，负责登记船只。"
    assert unwrapped("守护进程 gpm\nserver 运行的时候，你也可以用鼠标。", "Chinese").startswith("守护进程 gpm server")


def test_sentences_are_cut_as_they_stand():
    assert sentences_of("It rained. It was 3.5 m deep! Nobody came.", "English") == [
        "It rained.", "It was 3.5 m deep!", "Nobody came.",
    ]  # fmt: skip
    assert sentences_of("下雨了。“谁来了？”没有人。", "Chinese") == ["下雨了。", "“谁来了？”", "没有人。"]


# What takes several steps: each sample is confirmed by a plain search through the text it is about.
NAMES = {"English": english_sections, "Chinese": chinese_sections}
TABLES = """| town | founded |
|---|---|
| Anna | 1741 |
| Bela | 1802 |
| Clara | 1799 |
| Greta | 1650 |"""


def made_by(generator: Generator, lang: str, seeds: int = 12) -> list[tuple[MadeSample, dict[str, str]]]:
    """(sample, the text of each section by its label)."""
    found = []
    for seed in range(seeds):
        # Prose whose sentences stand once, and text whose words return more or less often.
        prose = Document("The town", f"{NAMES[lang]()}\n\n{TABLES}")
        (other,) = documents(lang, seed)  # type: ignore[arg-type]
        chosen = [prose, other] if generator is tables.tables_join else [prose if seed % 2 else other]
        shown = outline(chosen, lang, MOST, estimate_tokens, 0.0)  # type: ignore[arg-type]
        try:
            sample = checked(generator(Desk(shown, random.Random(seed))))
        except NoSampleError:
            continue
        assert all(sample.context.count(passage) == 1 for passage in sample.evidence)
        parts = {part.label: shown.show(part) for part in shown.sections}
        found.append((sample, parts))
    assert found, generator.__name__
    return found


def times(word: str, text: str) -> int:
    return len(re.findall(rf"\b{word}\b", text, re.I)) if word.isascii() else text.count(word)


def quoted(sample: MadeSample) -> list[str]:
    return re.findall(r"`(\w+)`" if sample.lang == "English" else "“([\u4e00-\u9fff]+)”", sample.question)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_chain_leads_where_a_reader_ends(lang):
    for sample, parts in made_by(paths.chain_of_mentions, lang):
        labels, texts = list(parts), list(parts.values())
        (here,) = [place for place, text in enumerate(texts) if sample.evidence[0] in text]
        for word in quoted(sample):
            here = next(place for place in range(here + 1, len(texts)) if times(word, texts[place]))
        assert labels[here] == sample.answer


@pytest.mark.parametrize("lang", LANGUAGES)
def test_words_meet_in_one_section(lang):
    for sample, parts in made_by(paths.meeting_place, lang):
        words = quoted(sample)
        assert [label for label, text in parts.items() if all(times(word, text) for word in words)] == [sample.answer]
        assert all(sum(bool(times(word, text)) for text in parts.values()) >= 3 for word in words)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_word_is_absent_from_the_place_that_has_another_most(lang):
    for sample, parts in made_by(paths.absent_from_peak, lang):
        word = quoted(sample)[0]
        counts = {label: times(word, text) for label, text in parts.items()}
        peak = max(counts, key=lambda label: counts[label])
        assert list(counts.values()).count(counts[peak]) == 1
        options = dict(re.findall(r"(?m)^\(([A-D])\) (.*)$", sample.question))
        (right,) = re.findall(r"\(([A-D])\)", sample.answer)
        assert [letter for letter, option in options.items() if not times(option, parts[peak])] == [right]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_list_at_the_end_is_what_was_put_on_it(lang):
    for sample, parts in made_by(paths.toggled_list, lang):
        words = quoted(sample)
        state: list[str] = []
        for text in parts.values():
            for word in words:
                if times(word, text):
                    state = [one for one in state if one != word] if word in state else [*state, word]
        assert sample.golds == tuple(f"{number} = {word}" for number, word in enumerate(state, 1))
        assert 2 <= len(state) < len(words)


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("generator", [versions.altered_sentence, versions.altered_statements])
def test_what_was_changed_stands_nowhere_and_the_rest_does(generator, lang):
    for sample, _ in made_by(generator, lang):
        told = dict(re.findall(r"(?m)^\(?([A-D]|S\d+)[):] (.*)$", sample.question))
        changed = {name for name, sentence in told.items() if sentence not in sample.context}
        assert changed == (set(sample.golds) or set(re.findall(r"\(([A-D])\)", sample.answer)))
        assert len(told) == len(set(told.values())) == len(sample.evidence)
        for name, sentence in told.items():
            assert (min(_changes(sentence, original) for original in sample.evidence) == 1) == (name in changed)


def _changes(sentence: str, other: str) -> int:
    """How many words (in Chinese, stretches of up to three characters) differ."""
    if re.search("[\u4e00-\u9fff]", sentence):
        found = difflib.SequenceMatcher(None, sentence, other, autojunk=False).get_opcodes()
        changed = [place for kind, a, b, _, _ in found if kind != "equal" for place in (a, b)]
        return 0 if not changed else 1 if max(changed) - min(changed) <= 3 else 9
    left, right = sentence.split(), other.split()
    return sum(a != b for a, b in zip(left, right, strict=True)) if len(left) == len(right) else 9


@pytest.mark.parametrize("lang", LANGUAGES)
def test_gaps_are_filled_with_what_the_text_has(lang):
    for sample, _ in made_by(versions.filled_gaps, lang):
        shown = dict(re.findall(r"(?m)^(G\d): (.*)$", sample.question))
        for gold in sample.golds:
            name, word = gold.split(" = ")
            assert shown[name].replace("____", word) in sample.context
    for sample, _ in made_by(versions.sum_of_gaps, lang):
        assert int(sample.answer) == sum(_numbers(sample))
    for sample, _ in made_by(versions.order_of_gaps, lang):
        names = re.findall(r"(?m)^(S\d): ", sample.question)
        values = dict(zip(names, _numbers(sample), strict=True))
        ordered = [values[name] for name in sample.golds]
        assert ordered == sorted(set(ordered))
        assert set(sample.golds) == set(names)


def _numbers(sample: MadeSample) -> list[int]:
    """What stands in the text at the gaps of the question, in their order."""
    found = []
    for line in sample.question.split("\n")[1:]:
        before, after = re.sub(r"^S\d: ", "", line).split("____")
        (number,) = re.findall(re.escape(before) + r"([\d,]+)" + re.escape(after), sample.context)
        found.append(int(number.replace(",", "")))
    return found


def test_versions_and_pages_are_no_amounts():
    lines = [
        "The clerk of the harbour noted that version 3.10 of the chart had arrived by mail.",
        "The reader of this report will find the names of all vessels on page 117 of the book.",
        "The office paid 1,250 crowns for the lantern of the new lighthouse.",
        "A storm in 1871 closed the harbour, and no vessel came in for many days.",
    ]
    text = "\n\n".join(f"## Part {number}\n\n{line}" for number, line in enumerate(lines, 1))
    desk = Desk(outline([Document("d", text)], "English", MOST, estimate_tokens, 0.0), random.Random(1))
    assert {gap.piece for gap in versions.number_gaps(desk)} == {"3.10", "117", "1,250", "1871"}
    assert {gap.piece for gap in versions.amount_gaps(desk)} == {"1,250", "1871"}


@pytest.mark.parametrize("lang", LANGUAGES)
def test_counts_by_section_are_compared_as_a_person_would(lang):
    for sample, parts in made_by(retrieval.more_than_other, lang):
        one, other = quoted(sample)[:2]
        places = [label for label, text in parts.items() if times(one, text) > times(other, text) > 0]
        assert list(sample.golds) == places
    for sample, parts in made_by(counting.more_often_than, lang):
        one, other = quoted(sample)[:2]
        assert int(sample.answer) == sum(times(one, text) > times(other, text) > 0 for text in parts.values())
    for sample, parts in made_by(counting.peak_table, lang):
        for word, label, most in json.loads(sample.answer)["data"]:
            counts = {name: times(word, text) for name, text in parts.items()}
            assert counts[label] == most == max(counts.values())
            assert list(counts.values()).count(most) == 1
    for sample, parts in made_by(counting.rank_by_topic, lang):
        counts = {label: sum(times(word, text) for word in quoted(sample)) for label, text in parts.items()}
        ranked = [counts.pop(label) for label in sample.golds]
        assert ranked == sorted(set(ranked), reverse=True)
        assert max(counts.values()) < ranked[-1]
    for sample, parts in made_by(counting.rank_by_spread, lang):
        spreads = [sum(bool(times(word, text)) for text in parts.values()) for word in sample.golds]
        assert spreads == sorted(set(spreads), reverse=True)
    for sample, parts in made_by(sequence.last_mention_order, lang):
        lasts = [max(n for n, text in enumerate(parts.values()) if times(word, text)) for word in sample.golds]
        assert lasts == sorted(set(lasts))


@pytest.mark.parametrize("lang", LANGUAGES)
def test_two_tables_are_joined_and_groups_counted(lang):
    for sample, _ in made_by(tables.tables_join, lang, 4):
        rows = json.loads(sample.answer)["data"]
        assert {row[0] for row in rows} == {"Anna", "Bela", "Clara"}
        for key, *cells in rows:
            lines = [line for line in sample.evidence if f"| {key} |" in line]
            assert len(lines) == 2
            assert all(any(cell in line for line in lines) for cell in cells)
    for seed in range(6):
        shown = outline(documents(lang, seed), lang, MOST, estimate_tokens, 0.0)
        sample = checked(tables.table_groups(Desk(shown, random.Random(seed))))
        assert dict(json.loads(sample.answer)["data"]) == {"copper": 3, "timber": 2, "oil": 1}


SUMMED = """## The harbour

The harbour office of the town keeps a register of every vessel that enters the bay. The council reads it.

It was founded late.

## Storms

{0}

The storms of that year were the worst that anybody could remember, and they lasted for nine days.

## {1}

{2}

## Fires

A fire destroyed half of the timber on the quay in one night. Nobody was hurt, but the loss was large.

The timber had been stacked too close.

## Schools

A school for navigators was founded with one teacher. He copied the chart by hand for each of his pupils.

It still stands."""
LEAD = (
    "Storms closed the harbour for nine days in that winter, and the lighthouse was the only light on the whole coast, "
    "so that the council decided to build a second one and to pay for it with the tariff on copper and timber."
)
WHOLE = (
    "The harbour grew from a small bay into the largest port of the coast. Storms and fires set it back, but "
    "its register, its lighthouse and its school of navigators made it safe, and merchants came from everywhere to "
    "trade copper and timber, as the numbers of the register show for every single year."
)


def test_summaries_are_the_authors_own_and_are_taken_out():
    document = Document("The harbour", SUMMED.format(LEAD, "Summary", WHOLE))
    shown = outline([document], "English", MOST, estimate_tokens, 0.0)
    named = checked(summaries.named_summary(Desk(shown, random.Random(1))))
    assert named.golds == (WHOLE,)
    assert WHOLE not in named.context
    assert "## Summary" not in named.context
    # No heading says that it sums up the text.
    plain = outline([Document("d", SUMMED.format(LEAD, "Ships", WHOLE))], "English", MOST, estimate_tokens, 0.0)
    with pytest.raises(NoSampleError, match="no section that sums up the text"):
        summaries.named_summary(Desk(plain, random.Random(1)))


def test_the_opening_of_a_text_is_asked_for_only_where_the_text_begins_there():
    body = (
        "In {0} the storms closed the harbour for days, the lighthouse was the only light on the coast, and the "
        "council decided to pay for the second lighthouse with the tariff on copper and on timber in the winter."
    )
    text = f"{LEAD}\n\n" + "\n\n".join(body.format(1900 + n) for n in range(12))
    one = outline([Document("d", text)], "English", MOST, estimate_tokens, 0.0)
    sample = checked(summaries.text_lead(Desk(one, random.Random(1))))
    assert sample.golds == (LEAD,)
    assert LEAD not in sample.context
    # What the rest of the text does not tell cannot be asked for.
    other = f"{LEAD}\n\n" + "\n\n".join(f"It happened in the year {1900 + n} that {WHOLE}" for n in range(12))
    with pytest.raises(NoSampleError, match="no text that its opening sums up"):
        summaries.text_lead(
            Desk(outline([Document("d", other)], "English", MOST, estimate_tokens, 0.0), random.Random(1))
        )
    cut = outline([Document("d", text)], "English", 500, estimate_tokens, 1.0)
    more = [Document("d", text), Document("e", "Another text.\n\nIt is short.")]
    for shown in (cut, outline(more, "English", MOST, estimate_tokens, 0.0)):
        with pytest.raises(NoSampleError, match="no text that opens"):
            summaries.text_lead(Desk(shown, random.Random(1)))


def desk_about(text: str) -> Desk:
    """A desk with the text in a section of its own, among others."""
    words = ("tide", "sand", "wind", "rock", "reef", "cliff")
    others = [f"## The {word}\n\nThe bay lies in the north; its {word} is known on the whole coast." for word in words]
    document = Document("The bay", "\n\n".join([f"## The town\n\n{text}", *others]))
    return Desk(outline([document], "English", MOST, estimate_tokens, 0.0), random.Random(1))


def test_no_guess_from_the_question_alone_passes():
    """Over all generators: what the question lists in any order, the first sections, one letter, one small number."""
    earned: dict[str, list[float]] = {}
    constants: dict[str, Counter[str]] = {"T2": Counter(), "T4": Counter()}
    for lang in LANGUAGES:
        for task in GENERATORS:
            for seed in range(12):
                try:
                    sample = sample_of(task, lang, seed)
                except NoSampleError:
                    continue
                earned.setdefault(sample.task, []).append(best_guess(sample)[0])
                if sample.task in constants:
                    constants[sample.task][sample.answer] += 1
    for task, rewards in earned.items():
        assert max(rewards) < PASS_THRESHOLDS[task], task
    assert sum(earned["T7"]) / len(earned["T7"]) < 0.4
    assert sum(earned["T3"]) / len(earned["T3"]) < 0.4
    for counted in constants.values():
        assert counted.most_common(1)[0][1] < 0.5 * counted.total()
        assert counted.total() > 10


@pytest.mark.parametrize(
    ("number", "usual"),
    [
        ("10", True), ("300", True), ("4,000", True), ("64", True), ("255", True), ("24", True), ("365", True),
        ("37", False), ("1871", False), ("1,250", False), ("3.75", False), ("17", False),
    ],
)  # fmt: skip
def test_numbers_that_many_people_would_guess_leave_no_gap(number, usual):
    text = f"The keeper of the lighthouse wrote down {number} names in that long and stormy winter."
    desk = desk_about(text)
    assert (number not in [gap.piece for gap in versions.number_gaps(desk)]) is usual


def test_a_gap_is_where_several_words_could_stand():
    kinds = ("harbour", "customs", "mining", "salt")
    common = [f"The {kind} office of the {kind} town kept a register." for kind in kinds]
    fixed = "In those years the Royal Navigation Company owned every one of the ships that came in."
    desk = desk_about("\n\n".join([*common, fixed, "The Royal Navigation Company was rich, and nobody knew it then."]))
    for seed in range(20):
        desk.rng.seed(seed)
        gap = versions.word_gap(desk, fixed)
        assert gap is None or gap.piece not in ("Navigation", "Company")


def test_half_of_a_chinese_compound_is_not_asked_about():
    line = "第{0}天，系统读取环境变量，保存日志文件；管理员检查了仓库，也检查了港口，然后关闭系统。"
    text = "\n\n".join(f"## 第{n}节\n\n{line.format(n)}" for n in range(1, 8))
    found = {term.word for term in terms(outline([Document("d", text)], "Chinese", MOST, estimate_tokens, 0.0))}
    assert not found & {"环境", "变量"}
    assert "仓库" in found


def test_a_heading_does_not_tell_which_sentence_stands_under_it():
    refused = 0
    shown = outline([Document("The town", english_sections())], "English", MOST, estimate_tokens, 0.0)
    for seed in range(40):
        try:
            sample = checked(retrieval.sentence_of_section(Desk(shown, random.Random(seed))))
        except NoSampleError as error:
            refused += error.reason == "answer in the question"
            continue
        subject = re.search(r"section `Part \d+: the (\w+)", sample.question)
        assert subject is not None
        options = dict(re.findall(r"(?m)^\(([A-D])\) (.*)$", sample.question))
        right = options.pop(sample.answer[-2])
        assert subject[1] not in right or any(subject[1] in one for one in options.values())
    assert refused
