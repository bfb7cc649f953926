"""Questions about documents: golds that score 1.0, evidence that is there, answers that a second count confirms."""

import json
import random
import re
from collections import Counter
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golongrl.data.construct.generators import GENERATORS, Document, MadeSample, NoSampleError, checked, generate
from golongrl.data.construct.generators.desk import Desk
from golongrl.data.construct.generators.outline import outline, sentences_of, unwrapped
from golongrl.data.construct.generators.retrieval import _NUMBER
from golongrl.data.construct.generators.terms import evidence, mentions, terms
from golongrl.data.corpus import estimate_tokens
from golongrl.tasks import score
from golongrl.tasks.gold import gold_response
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
        else:
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
    found = [match[0] for match in _NUMBER.finditer(sentence)]
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
