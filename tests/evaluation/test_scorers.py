"""No scorer raises whatever a model says; a score is in [0, 1] and the same each time."""

import math
from typing import get_args

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from golongrl.evaluation import judge
from golongrl.evaluation.benchmarks import bfcl_memory, docmath, docmath_rules, reading
from golongrl.evaluation.choices import choice_strict
from golongrl.evaluation.kinds import Mode
from golongrl.evaluation.problems import EvalProblem
from golongrl.evaluation.registry import BENCHMARKS
from golongrl.evaluation.replies import Reply
from golongrl.evaluation.text import cover_exact_match, same_text, stands_in, token_f1
from golongrl.evaluation.thought import strip_thought

_PIECES = st.sampled_from(
    ["<think>", "</think>", "the answer is", "Therefore, the answer is ", "ANSWER: ", "(", ")", "[", "]", "{", "}", "A",
     "\\boxed{", "\\frac{1}{2}", "12.5", "-5", "%", "$", "1e999", "9^{9^{9}}", "10^400", "math.pow(9,99)", "9**9**9",
     "B", "yes",
     "[[YES]]", "Paris", "灯塔", "h0Qx", "\n", " ", "'", '"', "answer", ":", ",", "\x00", "\ud800", "１２"]
)  # fmt: skip
_TEXTS = st.lists(_PIECES | st.text(max_size=6), max_size=14).map("".join)
_GOLDS = st.sampled_from(["A", "12.5", "-5", "0", "True", "204", "Paris", "h0Qxverse", "灯塔", "the"])
_LABELS = {"type": "multi-session", "ability": "abstention", "backend": "kv", "scenario": "student", "set": "qasper"}


@pytest.mark.parametrize("name", BENCHMARKS)
@settings(max_examples=40)
@given(
    text=_TEXTS,
    gold=_GOLDS,
    mode=st.sampled_from(get_args(Mode)),
    finish=st.sampled_from(["stop", "length"]),
    kind=st.sampled_from(["int", "float", "bool"]),
)
def test_a_reply_of_any_text_is_scored(name: str, text: str, gold: str, mode: Mode, finish: str, kind: str) -> None:
    benchmark = BENCHMARKS[name]
    extra = {"hash": "h0Qx", "type": kind, "choices": "10"}
    problem = EvalProblem("k", "s", "f", 1, ("204" if "aime" in name else gold,), "q", _LABELS, extra)
    reply = Reply(text, None, finish)
    scored = benchmark.score(problem, reply, mode)
    assert scored == benchmark.score(problem, reply, mode)
    if scored.status == "needs_judge":
        prompts = benchmark.judge_prompts(problem, scored.answer, mode)
        assert prompts
        verdict = benchmark.verdict(text, mode)
        scored = benchmark.decide(scored, [verdict] * len(prompts), mode)
        assert scored.status in ("scored", "unjudged")
    assert scored.status != "scored" or (scored.score is not None and 0.0 <= scored.score <= 1.0)


@given(text=_TEXTS, other=_TEXTS)
def test_text_measures_are_in_range(text: str, other: str) -> None:
    for mode in get_args(Mode):
        assert 0.0 <= token_f1(text, other, mode) <= 1.0
        cover_exact_match(text, other, mode)
    assert token_f1(text, text) in (0.0, pytest.approx(1.0))
    assert same_text(text, [text]) or token_f1(text, text) in (0.0, 1.0)


THOUGHTS = [
    ("<think>a</think>B", "stop", None, "B", set()),
    ("<think>a</think>B", "length", None, "B", {"truncated"}),
    ("a", "length", None, "", {"truncated", "no_thought_end"}),
    ("a", "length", "the thought", "a", {"truncated"}),
    ("", "length", "the thought", "", {"truncated", "no_thought_end"}),
    ("<think>a", "stop", None, "", {"truncated", "no_thought_end"}),
    ("a", "stop", None, "a", set()),
]


@pytest.mark.parametrize(("text", "finish", "reasoning", "answer", "flags"), THOUGHTS)
def test_a_cut_thought_is_no_answer(
    text: str, finish: str, reasoning: str | None, answer: str, flags: set[str]
) -> None:
    found = strip_thought(text, finish, reasoning=reasoning)
    assert (found.answer, set(found.flags)) == (answer, flags)


def test_a_model_without_thoughts_is_scored_as_cut() -> None:
    assert strip_thought("half an ans", "length", thinking=False).answer == "half an ans"
    problem = EvalProblem("k", "s", "f", 1, ("B",), "q")
    benchmark = BENCHMARKS["longbench-v2"]
    cut = "The correct answer is (B), because the te"
    assert benchmark.score(problem, Reply(cut, None, "length", thinking=False), "strict").score == 1.0
    thinking = benchmark.score(problem, Reply(cut, None, "length"), "strict")
    assert (thinking.score, set(thinking.flags)) == (0.0, {"truncated", "no_thought_end", "unparsed"})


CHOICES = [
    ("The correct answer is **(D)**", "D"), ("\\boxed{C}", "C"), ("Answer: option C", "C"), ("Answer:\nB", "B"),
    ("the answer is b.", "B"), ("答案是（B）", "B"), ("答案：C", "C"), ("**C**", "C"), ("(C)", "C"),
    ("The final answer is $\\boxed{\\text{(B)}}$", "B"), ("ANSWER: (C)", "C"), ("Option C is correct.", "C"),
    ("I am sure. (B) is the correct answer.", "B"), ("The answer is (A). No: the answer is (B)", "B"),
    ("the answer is a matter of taste", None), ("The correct answer is Apple", None), ("The answer is A-level", None),
    ("The answer is not (A)", None), ("The answer is (A) or (B)", None), ("A or B", None), ("The answer is (F)", None),
    ("The correct answer is (B), (A) being too early.", "B"), ("The answer is (B), but (A) is also possible.", None),
    ("The answer is (A). The answer is (F)", None), ("", None), ("I think so", None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "letter"), CHOICES)
def test_the_strict_choice(text: str, letter: str | None) -> None:
    assert choice_strict(text, 4) == letter


NUMBERS = [
    ("Therefore, the answer is 12.5", "12.5", 1), ("the answer is $5 million", "5", 1), ("the answer is -$5", "5", 0),
    ("the answer is $5 million", "5000000", 1), ("the answer is 3/4", "0.75", 1), ("the answer is 42 or 43", "42", 0),
    ("the answer is 40. Wait, the answer is 42", "42", 1), ("\\boxed{1,234.5}", "1234.5", 1), ("10", "1000", 0),
    ("the answer is 12.5%", "0.125", 1), ("the answer is 150%", "1.5", 1), ("the answer is 1.5", "150", 0),
    ("the answer is 12.5%", "0.00125", 0), ("the answer is 99.86", "100", 1), ("the answer is 99.8", "100", 0),
    ("the answer is 0", "0", 1), ("the answer is 0.001", "0", 0), ("about 42 units", "42", 1), ("two", "2", 0),
    ("the answer is 9e999999", "9", 0), ("", "0", 0), ("the answer is **(1,000)**.", "1000", 1),
    ("The answer is 42. It follows from 3 facts.", "42", 1),
]  # fmt: skip


@pytest.mark.parametrize(("text", "gold", "score"), NUMBERS)
def test_the_strict_number(text: str, gold: str, score: float) -> None:
    assert docmath_rules.strict_rule(text, gold, "float") == score


@pytest.mark.parametrize(
    ("text", "gold", "score"),
    [
        ("Yes.", "True", 1),
        ("the answer is no", "False", 1),
        ("True", "True", 1),
        ("nothing", "False", 0),
        ("", "False", 0),
    ],
)
def test_the_strict_truth(text: str, gold: str, score: float) -> None:
    assert docmath_rules.strict_rule(text, gold, "bool") == score


@example("(" * 5_000)
@example("-" * 5_000 + "1")
@given(
    st.lists(st.sampled_from(["9", "**", "*", "(", ")", "1", ",", "[", "-", "/0", "j", "'a'", "%"]), max_size=12).map(
        "".join
    )
)
def test_expressions_are_calculated_without_eval(expression: str) -> None:
    try:
        value = docmath_rules.evaluate(expression)
    except (ArithmeticError, LookupError, MemoryError, RecursionError, SyntaxError, TypeError, ValueError):
        return
    assert not isinstance(value, float) or math.isfinite(value) or value != 0


VERDICTS = [("[[NO]] at first, but [[YES]]", 1.0, 0.0), ("[[ yes ]]", 1.0, 1.0), ("NOT YES", None, judge.UNDECIDED)]


@pytest.mark.parametrize(("text", "strict", "compat"), VERDICTS)
def test_the_last_verdict_counts(text: str, strict: float | None, compat: float) -> None:
    assert judge.parse_verdict(text) == strict
    assert judge.parse_verdict(text, "compat") == compat


def test_the_released_readings_of_a_verdict() -> None:
    assert judge.has_yes("This is not YES") == 1.0
    assert judge.yes_and_not_no("[[YES]] or [[NO]]") == 0.0
    assert judge.yes_and_not_no("[[YES]]") == 1.0


def test_the_judge_sees_question_gold_and_answer() -> None:
    prompt = judge.same_answer("Where {is} it?", "Varn", "In {Varn}")
    assert all(part in prompt for part in ("Where {is} it?", "Varn", "In {Varn}", "[[YES]]", "[[NO]]"))
    assert judge.prompt_hash(prompt) == judge.prompt_hash(prompt) != judge.prompt_hash(prompt + " ")


def test_chinese_golds_need_no_word_boundary() -> None:
    assert cover_exact_match("答案是瓦恩。", "瓦恩")
    assert not cover_exact_match("答案是瓦恩。", "瓦恩", "compat")
    assert stands_in("$5", "it costs $5 now")
    assert not stands_in("paris", "parisian")


def test_missing_verdicts_are_unjudged_and_in_compat_flagged() -> None:
    benchmark = BENCHMARKS["longbench-qa"]
    problem = EvalProblem("k", "s", "f", 1, ("Paris", "Lutetia"), "q", {"set": "qasper"})
    scored = benchmark.score(problem, Reply("Therefore, the answer is (the capital)"), "strict")
    assert (scored.status, scored.rule) == ("needs_judge", 0.0)
    assert len(benchmark.judge_prompts(problem, scored.answer, "strict")) == 2
    assert benchmark.decide(scored, [None, 1.0], "strict").score == 1.0
    assert benchmark.decide(scored, [0.0, 0.0], "strict").score == 0.0
    unjudged = benchmark.decide(scored, [0.0, None], "strict")
    assert (unjudged.status, unjudged.score, set(unjudged.flags)) == ("unjudged", None, {"unjudged"})
    assert benchmark.verdict("They match: YES", "compat") is None
    compat = benchmark.decide(scored, [None, None], "compat")
    assert (compat.status, compat.score, set(compat.flags)) == ("scored", 0.0, {"unjudged"})


def test_an_equal_answer_needs_no_judge_in_strict_alone() -> None:
    benchmark = BENCHMARKS["corpusqa-128k"]
    problem = EvalProblem("k", "s", "f", 1, ("Alpha; Beta",), "q", {"domain": "education_en"})
    reply = Reply("The answer is: alpha; beta.")
    assert benchmark.score(problem, reply, "strict").score == 1.0
    assert benchmark.score(problem, reply, "compat").status == "needs_judge"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Therefore, the answer is (Paris).", "Paris"),
        ("Therefore, the answer is (Paris (France)).", "Paris (France)"),
        ("Therefore, the answer is (Paris) (France)", "(Paris) (France)"),
        ("Therefore, the answer is (a) and (b).", "(a) and (b)"),
        ("Therefore, the answer is ((a) and (b))", "(a) and (b)"),
    ],
)
def test_only_brackets_around_the_whole_answer_are_no_part_of_it(text: str, expected: str) -> None:
    assert reading.extract_answer(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("ANSWER: [B]", "B"), ("ANSWER: [LETTER]", None), ("Answer: [A] or [B]", None), ("The answer is [c].", "C")],
)
def test_a_letter_may_stand_in_square_brackets(text: str, expected: str | None) -> None:
    assert choice_strict(text, 4) == expected


def test_odd_python_in_a_reply_warns_nobody(recwarn: pytest.WarningsRecorder) -> None:
    assert docmath.rule_score("the answer is 1or 2, 3if", "1", "int", "compat") == 1.0
    docmath.rule_score("1or 2", "1", "int", "compat")
    bfcl_memory.answer_contained("{'answer': 1or 2}", ["1"])
    assert not list(recwarn)
