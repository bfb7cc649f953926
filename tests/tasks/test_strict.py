"""Every opening of compat: the exploit earns there, and not in strict; an honest answer earns in both."""

import json

import pytest

from golongrl.tasks import Outcome, score

LONGBENCH = {
    "Accuracy": "T3.2 Single-Hop Fact QA",
    "F1": "T5.1 Full-Sentence Citation Alignment",
    "SubEM": "T8.1 Structured Multi-Source Consistency Verification",
    "NDCG": "T1.1 Global Cohesive Retrieval",
    "Pairwise": "T2.1 Global Timeline Reconstruction",
    "ROUGE-L": "T4.1 Global-Coverage Constrained Summary",
}
TEN = [f"event {i}" for i in range(10)]
SUMMARY = "the council approved the budget after a long debate. the bridge was delayed twice by flooding"
LONG = (
    "the council approved its budget after a long debate on cost and price. a bridge over this river was delayed twice "
    "by flooding in spring. residents from northern districts collected signatures and asked for an independent audit. "
    "mayor smith promised to close every gap without new tax"
)
BAG = sorted(set(LONG.replace(".", "").split()), key=lambda word: word[::-1])  # in no order
TABLE = '{"data": [["a", 1], ["b", 2]]}'
OPTION = "The correct answer is "


def longbench(metric: str, response: str, golds: object, mode: str, language: str = "English") -> Outcome:
    truth = {"doc_ids": golds, "golden_label": "", "summary": language}
    return score("longbench_pro", response, truth, {"reward_mode": LONGBENCH[metric]}, mode)  # type: ignore[arg-type]


def labelled(source: str, response: str, label: object, mode: str) -> Outcome:
    return score(source, response, {"golden_label": label}, {}, mode)  # type: ignore[arg-type]


def listing(*lines: str) -> str:
    return "<think>r</think>[Answer]\n" + "\n".join(lines)


# name, metric, exploit, golds, at least in compat, at most in strict
EXPLOITS = [
    ("the summary in think, an empty answer", "ROUGE-L", f"<think>{SUMMARY}</think>", [SUMMARY], 0.89, 0.0),
    ("2 of 10 in order", "Pairwise", listing(*TEN[:2]), TEN, 1.0, 1 / 45),
    ("100 candidates", "SubEM", listing(*(f"event {i}" for i in range(100))), TEN[:2], 1.0, 0.02),
    ("the tag in think, F1", "F1", "<think>[Answer]\na\nb\n</think>sorry", ["a", "b"], 0.8, 0.0),
    (
        "candidates that differ in what looks like a bullet",
        "SubEM",
        listing("a: 1", "d: 2", "e: 2", "f: 2"),
        ["a: 1"],
        1.0,
        0.25,
    ),
    ("the tag in think, SubEM", "SubEM", "<think>[Answer]\na\nb\n</think>sorry", ["a", "b"], 1.0, 0.0),
    ("the tag in think, NDCG", "NDCG", "<think>[Answer]\na\nb\n</think>sorry", ["a", "b"], 1.0, 0.0),
    ("the tag in think, Pairwise", "Pairwise", "<think>[Answer]\na\nb\n</think>sorry", ["a", "b"], 0.3, 0.0),
    ("the tag in think, Accuracy", "Accuracy", "<think>[Answer]\nfoo\n</think>sorry", ["foo"], 1.0, 0.0),
    ("junk behind a NUL", "NDCG", listing("a\0junk", "b\0junk"), ["a", "b"], 1.0, 0.0),
    ("the words shuffled, each a sentence", "ROUGE-L", f"</think>[Answer]{'. '.join(BAG)}", [LONG], 0.97, 0.5),
    ("the words shuffled, 20 times", "ROUGE-L", f"</think>[Answer]{' '.join(BAG * 20)}", [LONG], 0.95, 0.15),
    ("the summary ten times", "ROUGE-L", f"</think>[Answer]{'. '.join([LONG] * 10)}", [LONG], 0.97, 0.2),
    ("<think> behind </think>", "F1", "</think><think>[Answer]\na", ["a"], 1.0, 0.0),
]


@pytest.mark.parametrize(
    ("name", "metric", "response", "golds", "floor", "ceiling"), EXPLOITS, ids=[e[0] for e in EXPLOITS]
)
def test_exploit(name: str, metric: str, response: str, golds: list[str], floor: float, ceiling: float) -> None:
    compat, strict = (longbench(metric, response, golds, mode) for mode in ("compat", "strict"))
    assert compat.score is not None
    assert compat.score >= floor
    assert strict.score is not None
    assert strict.score <= ceiling + 1e-12


OPTIONS = [
    ("a word that begins with the letter", OPTION + "Apple", "A"),
    ("the first of several", f"{OPTION}(A). {OPTION}(B).", "A"),
    ("a letter and a hyphen", OPTION + "A-level exams", "A"),
    ("two options", OPTION + "(A) or (B)", "A"),
    ("two options side by side", OPTION + "(A)(B)", "A"),
    ("all options", OPTION + "A, B, C or D.", "A"),
    ("all options with slashes", OPTION + "**A**/**B**/**C**/**D**", "A"),
]


@pytest.mark.parametrize(("name", "answer", "label"), OPTIONS, ids=[o[0] for o in OPTIONS])
def test_selection_exploit(name: str, answer: str, label: str) -> None:
    assert labelled("selection", f"</think>{answer}", label, "compat").score == 1.0
    assert labelled("selection", f"</think>{answer}", label, "strict").score == 0.0


def test_a_box_in_think_is_no_answer() -> None:
    response = r"<think>maybe \boxed{41}</think>I give up"
    assert labelled("math_longcot_math_verify", response, "41", "compat").score == 1.0
    assert labelled("math_longcot_math_verify", response, "41", "strict").score == 0.0


def test_a_table_in_think_is_no_answer() -> None:
    response = f"<think><answer>{TABLE}</answer></think>"
    assert labelled("multitableqa_pretraining", response, TABLE, "compat").score == 1.0
    assert labelled("multitableqa_pretraining", response, TABLE, "strict").score == 0.0


@pytest.mark.parametrize(
    ("name", "compat", "strict"),
    [
        (
            "think words drop a perfect summary",
            ("ROUGE-L", f"<think>{'hmm so then '.join(map(str, range(70)))}</think>{SUMMARY}", [SUMMARY]),
            1.0,
        ),
        ("blank lines count as items", ("F1", listing("a", "", "b"), ["a", "b"]), 1.0),
        ("bullets count as other items", ("F1", listing("- a", "2. b", "• c"), ["a", "b", "c"]), 1.0),
        ("an item that is itself a number stays", ("F1", listing("-17", "1. a"), ["-17", "1. a"]), 1.0),
    ],
)
def test_strict_pays_the_answer_in_full(name: str, compat: tuple[str, str, list[str]], strict: float) -> None:
    before, after = (longbench(*compat, mode).score for mode in ("compat", "strict"))
    assert before is not None
    assert after == pytest.approx(strict)
    assert before <= after + 1e-6


def test_strict_reads_options_beyond_d_and_the_last_answer() -> None:
    assert labelled("selection", f"</think>{OPTION}(E)", "E", "strict").score == 1.0
    assert labelled("selection", f"</think>{OPTION}(A). No: {OPTION}**(B)**.", f"{OPTION}(B)", "strict").score == 1.0


def test_one_option_and_something_else_is_one_option() -> None:
    for answer in (
        "A, I think.",
        "(A) A dog and a cat",
        "A. B is wrong",
        "(A), as (B) is too early",
        "A and nothing else",
    ):
        assert labelled("selection", f"</think>{OPTION}{answer}", "A", "strict").score == 1.0, answer


@pytest.mark.parametrize("data", ['"ab"', '{"a": 1, "b": 2}'])
def test_a_string_or_an_object_is_no_list_of_rows(data: str) -> None:
    """Their characters or keys pass for rows."""
    response, table = f'</think><answer>{{"data": {data}}}</answer>', '{"data": ["a", "b"]}'
    assert labelled("multitableqa_pretraining", response, table, "compat").score == 1.0
    assert labelled("multitableqa_pretraining", response, table, "strict").score == 0.0


def test_every_candidate_in_some_order_pays_less_than_a_choice() -> None:
    """Compat gives almost nothing either way; strict without the price of strangers would give the list a 1."""
    candidates = [f"event {i}" for i in range(100)]
    assert longbench("Pairwise", listing(*candidates), TEN, "strict").score == pytest.approx(0.2)
    assert longbench("Pairwise", listing(*candidates[:20]), TEN, "strict").score == 1.0  # a stranger to each gold


@pytest.mark.parametrize("metric", ["F1", "SubEM", "NDCG", "Pairwise"])
@pytest.mark.parametrize("mode", ["compat", "strict"])
def test_stuffing_never_pays(metric: str, mode: str) -> None:
    """Repeats of a hit, and a thousand strangers behind the list, are worth no more than the list alone."""
    honest = longbench(metric, listing(*TEN[:4]), TEN, mode).score
    strangers = [f"stranger {i}" for i in range(1000)]
    assert honest is not None
    for stuffed in (listing(*TEN[:4], *TEN[:4], TEN[0]), listing(*TEN[:4], *strangers), listing(*TEN[:4] * 50)):
        score_ = longbench(metric, stuffed, TEN, mode).score
        assert score_ is not None
        assert score_ <= honest + 1e-12


def test_a_tower_buys_no_way_out_of_a_zero() -> None:
    tower = r"</think>\boxed{9^{9^{9}}}"
    assert labelled("math_longcot_math_verify", tower, "42", "compat").status == "unscored"
    assert labelled("math_longcot_math_verify", tower, "42", "strict").score == 0.0


def test_a_mention_of_the_tag_in_think_does_not_ruin_the_table() -> None:
    response = f"<think>as <answer></think><answer>{TABLE}</answer>"
    assert labelled("multitableqa_pretraining", response, TABLE, "compat").score == 0.0
    assert labelled("multitableqa_pretraining", response, TABLE, "strict").score == 1.0


def test_repeats_and_strangers_earn_nothing_in_an_order() -> None:
    honest = longbench("Pairwise", listing(*TEN[:5]), TEN, "strict").score
    padded = longbench("Pairwise", listing("stranger", *TEN[:5], *TEN[:5], *reversed(TEN[:5])), TEN, "strict").score
    assert honest == padded == pytest.approx(10 / 45)


@pytest.mark.parametrize("metric", sorted(LONGBENCH))
@pytest.mark.parametrize("golds", [[], None, 3, "abc", [None, "a"], [3, 4], ["", "a"]])
@pytest.mark.parametrize("response", ["</think>[Answer]\na", "no gate"])
def test_an_invalid_ground_truth_is_unscored_whatever_was_answered(metric: str, golds: object, response: str) -> None:
    outcome = longbench(metric, response, golds, "strict")
    assert (outcome.status, outcome.score) == ("unscored", None)
    assert "doc_ids" in outcome.reason


@pytest.mark.parametrize(
    ("source", "label"),
    [
        ("EM", ""),
        ("EM", None),
        ("selection", "none of these"),
        ("math_longcot_math_verify", " "),
        ("multitableqa_pretraining", "not json"),
        ("multitableqa_pretraining", '{"data": []}'),
        ("multitableqa_pretraining", None),
    ],
)
def test_an_invalid_label_is_unscored(source: str, label: object) -> None:
    outcome = labelled(source, "</think>x", label, "strict")
    assert outcome.status == "unscored"
    assert outcome.reason.startswith("invalid ground truth")


@pytest.mark.parametrize(
    "rest",
    [
        "(B), but if you insist, (A)", "(B), or if you prefer, (A).", "(B); if you really want, A", "(B). If not, (A).",
        "(B), unless you prefer (A)", "(B), but if need be (A)",
    ],
)  # fmt: skip
def test_an_option_for_whoever_insists_is_a_hedge(rest: str) -> None:
    for label in ("A", "B"):
        assert labelled("selection", f"</think>{OPTION}{rest}", label, "strict").score == 0.0


@pytest.mark.parametrize(
    "rest",
    [
        "(B). If (A) were true, he would know.",
        "(B), if you read on, since (A) fails",
        "(B), not (A)",
        "(B); it should not be (A)",
    ],
)
def test_a_condition_on_another_option_is_no_hedge(rest: str) -> None:
    assert labelled("selection", f"</think>{OPTION}{rest}", "B", "strict").score == 1.0


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (r"\max 12", 0.0), (r"\min{12}", 0.0), (r"\sup 12", 0.0), ("13 = 12", 0.0), ("11 = 13 = 12", 0.0),
        ("-12 = 12", 0.0), ("x = 12", 1.0), ("6+6 = 12", 1.0), ("12 = 12", 1.0), ("12.0 = 12", 1.0),
        (r"\max(3, 12)", 1.0), ("2 \\cdot 6 = 12", 1.0), ("x = y = 12", 1.0),
    ],
)  # fmt: skip
def test_an_untrue_equation_of_numbers_is_no_answer(answer: str, expected: float) -> None:
    found = labelled("math_longcot_math_verify", f"</think>\\boxed{{{answer}}}", "12", "strict").score
    assert found == expected


# What looks the same in two encodings: accents and Hangul composed or apart, the Angstrom and Ohm signs, widths,
# spaces, line ends, and signs that nobody sees.
SAME = [
    ("Zo\u00eb", "Zoe\u0308"),
    ("\uc774\ub984", "\u110b\u1175\u1105\u1173\u11b7"),
    ("\u00c5", "\u212b"),
    ("10 \u03a9", "10 \u2126"),
    ("\u7b2c3\u6761", "\u7b2c\uff13\u6761"),
    ("\u7532(\u4e00)", "\u7532\uff08\u4e00\uff09"),
    ("\u30ac", "\uff76\uff9e"),
    ("Section 4.2", "Section\u00a04.2"),
    ("Paris", "Paris\u200b"),
    ("first office", "\ufb01rst o\ufb03ce"),
    ("Paris", "\ufeffParis"),
]
DIFFERENT = [
    ("x\u00b2", "x2"),
    ("\u00bd", "1/2"),
    ("Zo\u00eb", "Zoe"),
    ("\u4e2d\u56fd", "\u4e2d\u570b"),
    ("co-op", "coop"),
]


def _everywhere(gold: str, answer: str) -> list[float | None]:
    """The answer's score by each metric that compares texts, in strict mode."""
    found = [labelled("EM", f"</think>{answer}", gold, "strict")]
    found += [longbench(metric, listing(answer), [gold], "strict") for metric in ("Accuracy", "F1", "SubEM", "NDCG")]
    found.append(longbench("Pairwise", listing(answer, "other"), [gold, "other"], "strict"))
    found.append(longbench("ROUGE-L", listing(answer), [gold], "strict"))
    gold_table, table = (json.dumps({"data": [[text, 1]]}) for text in (gold, answer))
    found.append(labelled("multitableqa_pretraining", f"</think><answer>{table}</answer>", gold_table, "strict"))
    return [outcome.score for outcome in found]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_what_looks_the_same_is_the_same(one: str, other: str) -> None:
    for gold, answer in ((one, other), (other, one)):
        assert _everywhere(gold, answer) == pytest.approx([1.0] * 8)


@pytest.mark.parametrize(("gold", "answer"), DIFFERENT)
def test_what_looks_different_differs(gold: str, answer: str) -> None:
    assert max(score or 0.0 for score in _everywhere(gold, answer)) < 1.0


def test_line_ends_of_another_system_are_line_ends() -> None:
    assert labelled("EM", "</think>a\r\nb", "a\nb", "strict").score == 1.0


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        # Without a box: what is stated, or the last line, judged as a box would be.
        ("42", "The answer is 42.", 1),
        ("42", "The answer is $42$, as the table says.", 1),
        ("42", "42", 1),
        ("42", "I counted the rows.\n\n$x = 42$", 1),
        ("42", "The answer is 42 or 41.", 0),
        ("42", "The answer is 41 or 42.", 0),
        ("42", "Candidates: 40, 41, 42", 0),
        ("42", "The answer is not 42.", 0),
        ("42", "Final answer: 42 (or possibly 43)", 0),
        ("42", "at least 42", 0),
        ("42", "So the total is 42", 1),
        # The noun that is counted changes no number, whatever letters it has.
        *(("42", f"\\boxed{{42 {noun}}}", 1) for noun in ("documents", "items", "rows", "tokens", "research papers")),
        *((f"42 {noun}", "\\boxed{42}", 1) for noun in ("documents", "items", "rows", "tokens")),
        *(("42", f"\\boxed{{42 {other}}}", 0) for other in ("x", "xy", "and more", "or more", "thousand")),
        ("42 documents", "\\boxed{42 tokens}", 0),
        ("12 Angry Men", "\\boxed{12}", 0),
        # A code is no number.
        ("42000", "\\boxed{42K}", 1),
        ("+1-555-0100", "\\boxed{-654}", 0),
        ("+1-555-0100", "\\boxed{+1-555-0100}", 1),
    ],
)
def test_math_that_is_no_plain_box(gold: str, answer: str, right: int) -> None:
    assert labelled("math_longcot_math_verify", f"</think>{answer}", gold, "strict").score == right


@pytest.mark.parametrize(("label", "answer"), [("caf\u00e9", "cafe\u0301"), ("cafe\u0301", "caf\u00e9")])
def test_an_accent_composed_or_apart_is_the_same(label: str, answer: str) -> None:
    assert labelled("EM", f"</think>{answer}", label, "strict").score == 1.0
    assert labelled("EM", f"</think>{answer}", label, "compat").score == 0.0
    assert labelled("EM", "</think>cafe", label, "strict").score == 0.0
