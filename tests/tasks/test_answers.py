"""Strict mode reads answers as people write them: what says the same earns 1, what says something else earns 0."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from golongrl.tasks import score

CASES = Path(os.environ.get("GOLONGRL_SCORE_CASES") or Path(__file__).parent / "faults.jsonl")
MATH = "math_longcot_math_verify"
TABLE = {"data": [["a", 1]]}
TABLE_JSON = json.dumps(TABLE)
# Scored through the reward service, which keeps the deadline: tests/reward/test_gold_check.py.
OUTLASTS = "S7"


def cases() -> list[Any]:
    rows = [json.loads(line) for line in CASES.read_text("utf-8").splitlines() if line.strip()]
    kept = [row for row in rows if not row["fault"].startswith(OUTLASTS)]
    return [pytest.param(row, id=f"{i}-{row['fault'][:24]}") for i, row in enumerate(kept)]


@pytest.mark.parametrize("row", cases())
def test_recorded_faults(row: dict[str, Any]) -> None:
    outcome = score(row["data_source"], row["response"], row["ground_truth"], row["extra_info"], "strict")
    assert outcome.score == row["right"], outcome


def strict(source: str, answer: str, truth: Any, reward_mode: str = "") -> float | None:
    return score(source, f"<think>t</think>{answer}", truth, {"reward_mode": reward_mode}, "strict").score


ONE_OPTION = [
    "(B), B being the only option that fits.",
    "(B)\n(A) is wrong since clause 3 says otherwise.",
    "(B). (A) and (C) are wrong.",
    "(B), not (A).",
    "(B) and not (A) or (C)",
    "(B) rather than (A)",
    "(B), because (A) and (C) contradict the text.",
    "(B), (A) being too early.",
    "(B), (A) is wrong",
    "(B)\n\n(A): too early\n(C): too late",
    "(B) - A, C and D are incorrect.",
    "**(B)**, since A fails.",
    "B",
    "B\nA is wrong.",
    "B. A is wrong.",
    "(B) or, in words, the second one",
    "(B), the second one, as option A cannot be true",
    "(B), while (A) is not supported",
    "(B)，(A)是错误的",
    "（B）。",
    "(B); (A) contradicts clause 2",
    "(B) and (A) is wrong",
    "(B) / B",
    "(B) (A is incorrect)",
    "( B )",
    "`(B)`",
    "(B)\n\nExplanation:\n(A) was ruled out\n(C) was ruled out",
    "(B), as stated in clause 4; (A) ignores it",
    "(B), given that (A), (C) and (D) all fail",
    "(B): A is off-topic",
    "(B)\nA: no\nC: no",
    "(B) — not (A)",
    "(B), unlike A",
    "(B). Option (A) is incorrect because...",
    "(B). Both (A) and (C) are wrong.",
    "(B), which matches the passage",
    "(B), B",
    "(B) B. The river",
    "(B) The river",
    "(B) The river (A) is a distractor",
    "(B)!",
    "(B), whereas (A) refers to 2019",
    "(B) since A, C, D are contradicted",
    "(B), though (A) looks tempting",
    "(B), even though (A) seems plausible",
    "(B). I considered (A) but rejected it",
    "(B), eliminating A and C",
    "(B) (see A)",
    "(B), and the others are wrong",
    "(B), and (A) is incorrect",
    "(B) and I am confident",
    '(B), or "the river"',
    "(B) because either (A) or (C) would need...",
    "(B), not (A), not (C)",
    "(B), instead of (A)",
    "(B), A and C being ruled out",
    "(B); A, C, and D do not fit.",
    "(B)。(A)不正确。",
    "(B)，而(A)与文中矛盾",
    "(B). A dog appears in (A).",
    "(B) but not (A)",
    "(B), but (A) is wrong",
    "(B) but (A) was close",
    "(B), although (A) might appear right, it is not",
    "(B) (the others, A and C, are wrong)",
    "(B) [A is wrong]",
    "(B) , because A ...",
    "(B). So the answer is (B).",
    "(B). Final answer: B",
    "(B), otherwise (A) would follow from clause 2",
    "(B) rather than option (A)",
    "(B). The answer is not (A).",
]
SEVERAL_OPTIONS = [
    "(A) or (B).",
    "(B) or (A).",
    "(B) or possibly (A)",
    "(B), or maybe (A)",
    "(B), (A)",
    "(B); (A)",
    "(B)/(A)",
    "(B) | (A)",
    "(B) & (A)",
    "(B) and (A)",
    "(B)(A)",
    "B, A, C or D",
    "B / C",
    "(B) and (C) are both correct",
    "(B), but (A) is also possible",
    "(B), possibly (A)",
    "(B) or else option (A)",
    "(B) 或 (A)",
    "(B)、(A)",
    "(B)和(A)",
    "（B）或者（C）",
    "(B)\nor (A)",
    "(B)\n(A)\n(C)\n(D)",
    "(B). Or (A).",
    "(B) and/or (C)",
    "(B) as well as (C)",
    "(B), alternatively (C)",
    "(B) (or (C))",
    "(B) or (C), hard to say",
    "either (A) or (B)",
    "(B), or (A).",
    "(B) or even (A)",
    "(B) and maybe (A)",
    "(B) & C",
    "B or C",
    "B/C",
    "B, C",
    "(B), (C), (D)",
    "(B) as well as (A)",
    "(B) plus (C)",
    "(B) + (C)",
    "(B) and also (C)",
    "(B), but it could also be (A)",
    "(B), but could be (A)",
    "(B); alternatively (A)",
    "(B), possibly also (A)",
    "(B), perhaps (A)",
    "(B) or option A",
    "(B) or choice (A)",
    "(B)或(A)",
    "(B)、(C)、(D)",
    "(B) or (A) or (C) or (D)",
    "(B), though it may be (A)",
    "(B), (A) are both right",
    "(B) and (A) both apply",
    "(B),(A)",
    "(B) ~ (A)",
    "(B) / (A)",
    "(B), (or A)",
    "(B) [or (A)]",
    "(B)? or (A)?",
    "(B) - or (A)",
    "(B), (A) is also correct",
    "(B) or B or A",
    "(B)...(A)",
    "(B) vs (A)",
    "(B) (A) (C) (D)",
    "(B) \\text{or} (A)",
    "(B) or, failing that, (A)",
    "(B), or else it is (A)",
    "(B) or **(A)**",
    "(B) xor (A)",
    "(B) nor (A)",
    "(B) oder (A)",
    "(B) und (A)",
    "(B) et (A)",
    "(B) y (A)",
    "(B) или (A)",
    "(B) または (A)",
    "(B) と (A)",
    "(B) 또는 (A)",
    "(B) with (A)",
    "(B) along with (A)",
    "(B) together with (A)",
    "(B) in addition to (A)",
    "(B) followed by (A)",
    "(B), equally (A)",
    "(B), sometimes (A)",
    "(B), or rather (A)",
    "(B), no, (A)",
    "(B), sorry, (A)",
    "(B), I mean (A)",
    "(B). No, wait: (A).",
    "(B). Hmm, no, it is (A).",
    "(B) if clause 3 holds, otherwise (A)",
    "(B) if clause 3 holds, else (A)",
    "(B). Another correct answer is (A).",
    "(B)\n\nThe correct answer could also be (A)",
    "(B). So the answer is (A).",
    "(B). Final answer: A",
    "(B). Final answer: option (A)",
    "(B).\n\nOn reflection, the correct answer is (A).",
]


@pytest.mark.parametrize("answer", ONE_OPTION)
def test_one_option(answer: str) -> None:
    assert strict("selection", f"The correct answer is {answer}", {"golden_label": "B"}) == 1.0


@pytest.mark.parametrize("answer", SEVERAL_OPTIONS)
def test_several_options(answer: str) -> None:
    assert strict("selection", f"The correct answer is {answer}", {"golden_label": "B"}) == 0.0


ANSWERS = [json.loads(line) for line in (Path(__file__).parent / "answers.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("row", ANSWERS, ids=[f"{row['right']}: {row['gold']} | {row['answer']}" for row in ANSWERS])
def test_a_boxed_answer(row: dict[str, Any]) -> None:
    for frame in ("The result is \\boxed{%s}.", "So $\\boxed{%s}$"):
        assert strict(MATH, frame % row["answer"], {"golden_label": row["gold"]}) == row["right"], frame


@pytest.mark.parametrize(
    ("gold", "text", "right"),
    [
        ("4 million", "\\boxed{4} million", 1.0),
        ("4", "\\boxed{4} million", 0.0),
        ("4", "\\boxed{4} is the answer", 1.0),
        ("4", "\\boxed{3} or \\boxed{4}", 0.0),
        ("北京", "\\boxed{上海} 或 \\boxed{北京}", 0.0),
        ("北京", "Not \\boxed{上海}. The second line shows it: \\boxed{北京}", 1.0),
        ("2021-03-04", "The answer is 2014", 0.0),
        ("2021-03-04", "The answer is March 4, 2021.", 1.0),
        ("4 million", "The answer is 4 billion.", 0.0),
        ("4 million", "The answer is 4 million.", 1.0),
        ("42", "The answer is $42$.", 1.0),
        ("42", "It follows that x is 42", 1.0),
    ],
)
def test_what_stands_around_the_answer(gold: str, text: str, right: float) -> None:
    assert strict(MATH, text, {"golden_label": gold}) == right


LINES = "T3.2 Single-Hop Fact QA"
TAGS = [
    "[Answer]\nParis",
    "**[Answer]**\nParis",
    "**[Answer]**: Paris",
    "**[Answer]:**\nParis",
    "### [Answer]\nParis",
    "__[Answer]__\nParis",
    "`[Answer]`\nParis",
    "> [Answer]\nParis",
    "<b>[Answer]</b>\nParis",
    "*[Answer]*\n\nParis",
    "[Answer]: Paris",
    "[Answer]\n**Paris**",
    "[Answer]\n- **Paris**",
    "[Answer]\n```\nParis\n```",
    "[答案]\nParis",
    "**[答案]**：\nParis",
    "【答案】Paris",
    "[ANSWER]\nParis",
    "\\[Answer\\]\nParis",
    "I will put it after [Answer].\n[Answer]\nParis",
    "[Answer]\n`Paris`",
    "***[Answer]***\nParis",
    "## **[Answer]**\nParis",
    "**[Answer] Paris**",
]


@pytest.mark.parametrize("text", TAGS)
def test_a_tag_in_marks(text: str) -> None:
    assert strict("longbench_pro", text, {"golden_label": "", "doc_ids": ["Paris"], "summary": "English"}, LINES) == 1.0


def test_a_mention_behind_the_answer_is_no_tag() -> None:
    text = "[Answer]\nParis\nas asked, behind the [Answer] tag"
    assert strict("longbench_pro", text, {"doc_ids": ["Paris"], "summary": "English"}, LINES) == 1.0


@pytest.mark.parametrize(
    "text", ["[Answer]\nLyon", "**[Answer]**\nLyon", "Paris\n[Answer]\nLyon", "**Paris**\n**[Answer]**\nLyon"]
)
def test_another_answer_behind_the_tag(text: str) -> None:
    assert strict("longbench_pro", text, {"doc_ids": ["Paris"], "summary": "English"}, LINES) == 0.0


TABLES = [
    f"<answer>{TABLE_JSON}</answer>",
    f"<answer>```json\n{TABLE_JSON}\n```</answer>",
    f"<answer>\n```\n{TABLE_JSON}\n```\n</answer>",
    f"<answer>~~~JSON\n{TABLE_JSON}\n~~~</answer>",
    f"```json\n{TABLE_JSON}\n```",
    f"```json\n<answer>{TABLE_JSON}</answer>\n```",
    f"<answer>Here is the table: {TABLE_JSON}</answer>",
    f"<answer>`{TABLE_JSON}`</answer>",
    f"I put the table in <answer> tags. <answer>{TABLE_JSON}</answer>",
    f"<answer>{TABLE_JSON}</answer> I used <answer> tags.",
    f"Between <answer> and </answer>: <answer>{TABLE_JSON}</answer>",
    f"<Answer>{TABLE_JSON}</Answer>",
    f"**<answer>**{TABLE_JSON}**</answer>**",
    f"<answer>{TABLE_JSON}",
    f"The table:\n{TABLE_JSON}\nDone.",
    f"<answer></answer><answer>{TABLE_JSON}</answer>",
]


@pytest.mark.parametrize("text", TABLES)
def test_a_table_in_marks(text: str) -> None:
    assert strict("multitableqa_pretraining", text, {"golden_label": TABLE_JSON}) == 1.0


@pytest.mark.parametrize(
    "text",
    [
        '<answer>{"data": [["b", 2]]}</answer>',
        f'{TABLE_JSON} <answer>{{"data": [["b", 2]]}}</answer>',
        f'<answer>{TABLE_JSON}</answer><answer>{{"data": [["b", 2]]}}</answer>',
        '<answer>```json\n[["a", 1]]\n```</answer>',
        "<answer>" + "{" * 10_000,
    ],
)
def test_another_table(text: str) -> None:
    assert strict("multitableqa_pretraining", text, {"golden_label": TABLE_JSON}) == 0.0


@pytest.mark.parametrize(
    ("source", "mode", "answer", "truth"),
    [
        (MATH, "", "\\boxed{42}", "42"),
        (MATH, "", "\\boxed{42}", 42),
        (MATH, "", "\\boxed{0.5}", 0.5),
        ("EM", "", "Paris", "Paris"),
        ("EM", "", "7", 7),
        ("selection", "", "The correct answer is (B)", "B"),
        ("multitableqa_pretraining", "", f"<answer>{TABLE_JSON}</answer>", TABLE_JSON),
        ("longbench_pro", LINES, "[Answer]\nParis", "Paris"),
        ("longbench_pro", "T5.1 Full-Sentence Citation Alignment", "[Answer]\nb\na", "a\nb"),
        (
            "longbench_pro",
            "T4.1 Global-Coverage Constrained Summary",
            "[Answer]\nthe bridge was late",
            "the bridge was late",
        ),
    ],
)
def test_a_plain_ground_truth(source: str, mode: str, answer: str, truth: Any) -> None:
    assert strict(source, answer, truth, mode) == pytest.approx(1.0)


def test_compat_takes_a_plain_ground_truth_in_math_rows() -> None:
    assert score(MATH, "</think>\\boxed{42}", "42", {}).score == 1.0
    assert score(MATH, "</think>\\boxed{41}", "42", {}).score == 0.0


def test_lines_that_differ_behind_a_nul_earn_at_most_1() -> None:
    golds = ["a", "b", "c"]
    response = "</think>[Answer]\n" + "\n".join(f"a\0{i}" for i in range(3))
    info = {"reward_mode": "T1.1 Global Cohesive Retrieval"}
    assert score("longbench_pro", response, {"doc_ids": golds, "summary": "English"}, info).score == 1.0
