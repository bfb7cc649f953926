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


STATES_B = [
    "The correct answer is (B), because option (A) ignores clause 3.",
    "the correct answer is (b).",
    "The correct answer is option B.",
    "The correct answer is Option (B)",
    "The correct answer is: (B)",
    "The correct answer is: **B**",
    "The correct answer is **(B)**: The river.",
    'The correct answer is "B".',
    "The correct answer is [B].",
    "The correct answer is \\boxed{B}.",
    "The correct answer is $\\boxed{\\text{B}}$",
    "The correct answer is clearly (B).",
    "The correct answer is therefore (B).",
    "The correct answer is thus B.",
    "The correct answer is b.",
    "The correct answer is not (A) but (B).",
    "The correct answer is (B). Options (A), (C) and (D) are wrong.",
    "The correct answer is (B). If the answer is (A), clause 3 would fail.",
    "The correct answer is (B). A wrong answer is (A).",
    "The correct answer is (B). One might think the answer is (A), but it fails.",
    'The correct answer is (B). I used the form "The correct answer is (X)".',
    "THE CORRECT ANSWER IS (B)",
    "The correct answer is (B).  (A) mentions 1990, (C) mentions 1991 and (D) is unrelated.",
    "The correct answer is (B), and here is why: (A) says the opposite.",
    "The correct answer is (B). Why not (A)? Because it is too broad.",
    "The correct answer is (B), which rules out (A).",
    "The correct answer is (B); compare (A).",
    "The correct answer is (B), while (A), (C), and (D) are distractors.",
    "The correct answer is (B), in contrast to (A).",
    "The correct answer is (B) over (A).",
    "The correct answer is (B), more so than (A).",
    "The correct answer is (B) as opposed to (A).",
    "The correct answer is (B), better than (A).",
    "The correct answer is (B), excluding (A) and (C).",
    "The correct answer is (B). (A): wrong. (C): wrong.",
    "The correct answer is (B)\n\nA) wrong\nC) wrong",
    "The correct answer is (B).\n- (A) is a misreading\n- (C) is out of scope",
    "The correct answer is (B) - see paragraph A.",
    "The correct answer is (B), Vitamin A deficiency.",
    "The correct answer is (B), since A < C.",
    "The correct answer is (B) Type A blood.",
    "The correct answer is (B) Plan A or Plan C.",
    "The correct answer is (B) Both Smith and Jones.",
    "The correct answer is (B) I and II.",
    "The correct answer is (B) I or II only.",
    "The correct answer is (B), as (A)'s claim is not supported.",
    "The correct answer is (B)，因为(A)不符合原文。",
    "The correct answer is (B)。选项A与原文矛盾。",
    "The correct answer is （B）",
    "正确答案是(B)。",
    "正确答案：B",
    "答案为（B），而非（A）。",
    "The correct answer is (B). Thus (A) cannot be correct.",
    "The correct answer is (B). The other options, (A), (C), (D), are unsupported.",
    "The correct answer is (B), though some would pick (A).",
    "The correct answer is (B), though many readers choose (A).",
    "The correct answer is (B), and nothing else, not even (A).",
    "The correct answer is (B), the opposite of (A).",
    "The correct answer is (B). (A) would be right only if clause 2 held.",
    "The correct answer is (B), but why isn't it (A)?",
    "The correct answer is (B). Note: (A) is true in general but not here.",
    "The correct answer is (B) and definitely not (A).",
    "The correct answer is (B), A's being a distractor.",
    "The correct answer is (B), neither (A) nor (C).",
    "The correct answer is (B); all others (A, C, D) are wrong.",
    "The correct answer is (B). So, (B).",
    "The correct answer is (B), where B denotes the treaty.",
    "The correct answer is (B), i.e., option B.",
    "The correct answer is (B), or equivalently B.",
    "Initially I thought (A), but the correct answer is (B).",
    "(A) is too early and (C) too late. The correct answer is (B).",
    "The correct answer is (B) since it's the only one of A-D that fits.",
    "The correct answer is (B) (not A, C or D).",
    "The correct answer is (B) [eliminated: A, C, D]",
    "The correct answer is (B)\n(A) ✗ (C) ✗ (D) ✗",
    "The correct answer is (B), for (A) is too early.",
    "The correct answer is (B), with (A) being the runner-up.",
    "The correct answer is (B). With (A) the sum would be off.",
    "The correct answer is (B), then (A) is refuted.",
    "The correct answer is (B), so (A) is wrong.",
    "The correct answer is (B), so (A), (C) and (D) can be eliminated.",
    "The correct answer is (B), and so (A) is out.",
    "The correct answer is (B), by which (A) is excluded.",
    "The correct answer is (B), but (A) comes close.",
    "The correct answer is (B). But (A) was tempting.",
    "The correct answer is (B) even though (A) also mentions rivers.",
    "The correct answer is (B). Answer (A) also mentions rivers but in 1990.",
]
STATES_NOTHING_OR_MORE = [
    "The correct answer is (B), (A) for those who object.",
    "The correct answer is (B); (A) for anyone who disagrees.",
    "The correct answer is (B) or A.",
    "The correct answer is (b) or (a).",
    "The correct answer is B or (c).",
    "The correct answer is both (A) and (B).",
    "The correct answer is either A or B.",
    "The correct answer is (A) and/or (B).",
    "The correct answer is (B)/(C)/(D).",
    "The correct answer is B/A.",
    "The correct answer is (B), if not (A).",
    "The correct answer is (B) otherwise (A).",
    "The correct answer is (A) if clause 3 holds, (B) otherwise.",
    "The correct answer is (B), (A) as an alternative.",
    "The correct answer is (B) [alternatively: (A)].",
    "The correct answer is (A) or the correct answer is (B).",
    "The correct answer is (A). Alternatively, the correct answer is (B).",
    "The correct answer is (A), and another correct answer is (B).",
    "The correct answer is (A). Also, the correct answer is (B).",
    "The correct answer is (B) or maybe even (C) or (D).",
    "The correct answer is (B) and, to a lesser extent, (A).",
    "The correct answer is (B), or in some readings (A).",
    "The correct answer is (B), or (A) depending on the reading.",
    "The correct answer is (B) 以及 (A)",
    "The correct answer is (B)或者(A)都可以",
    "正确答案是B或A",
    "正确答案：B、C",
    "The correct answer is (B), though (A) is equally valid.",
    "The correct answer is (B), but (A) works too.",
    "The correct answer is (B), could also be (A).",
    "The correct answer is (B), might be (A).",
    "The correct answer is (B) - (D).",
    "The correct answer is (B)-(D).",
    "The correct answer is (B) through (D).",
    "The correct answer is (B) to (D).",
    "The correct answer is A, B.",
    "The correct answer is A and B.",
    "The correct answer is A or B.",
    "The correct answer is B... or A?",
    "The correct answer is not (B).",
    "The correct answer is unlikely (B).",
    "The correct answer is Bananas.",
    "The correct answer is (A).",
    "The correct answer is a B-type star.",
    "The correct answer is neither (A) nor (B).",
    "The correct answer is something between (A) and (B).",
    "The correct answer is B, A being possible as well.",
    "The correct answer is (B). Scratch that, (A).",
    "The correct answer is (B). Correction: (A).",
    "The correct answer is (B). Edit: the correct answer is (A).",
    "The correct answer is (B), or all of the above: (A), (C), (D).",
    "The correct answer is (B) then (A).",
    "The correct answer is (B) ∨ (A)",
    "The correct answer is (B) ∪ (A)",
    "The correct answer is (B)，或(A)",
    "The correct answer is (B)｜(A)",
    "The correct answer is (B), A, C, D",
    "The correct answer is (B) \\\\ (A)",
    'The correct answer is "B" or "A".',
    "The correct answer is **B** or **A**",
    "The correct answer is [B] or [A]",
    "The correct answer is \\boxed{B} or \\boxed{A}",
    "The correct answer is option B or option A",
]


@pytest.mark.parametrize("answer", STATES_B)
def test_a_statement_of_one_option(answer: str) -> None:
    assert strict("selection", answer, {"golden_label": "B"}) == 1.0


@pytest.mark.parametrize("answer", STATES_NOTHING_OR_MORE)
def test_a_statement_of_no_or_several_options(answer: str) -> None:
    assert strict("selection", answer, {"golden_label": "B"}) == 0.0


@pytest.mark.parametrize("answer", ONE_OPTION)
def test_one_option(answer: str) -> None:
    assert strict("selection", f"The correct answer is {answer}", {"golden_label": "B"}) == 1.0


@pytest.mark.parametrize("answer", SEVERAL_OPTIONS)
def test_several_options(answer: str) -> None:
    assert strict("selection", f"The correct answer is {answer}", {"golden_label": "B"}) == 0.0


def misjudged(name: str, source: str, *frames: str) -> list[tuple[str, float | None, dict[str, Any]]]:
    """Rows of gold, answer and the right score that are scored otherwise: thousands, too many for a test each."""
    rows = [json.loads(line) for line in (Path(__file__).parent / name).read_text("utf-8").splitlines()]
    scored = (
        (frame, strict(source, frame.replace("%s", row["answer"]), {"golden_label": row["gold"]}), row)
        for row in rows
        for frame in frames
    )
    return [(frame, found, row) for frame, found, row in scored if found != row["right"]]


def test_selections() -> None:
    assert misjudged("selections.jsonl", "selection", "%s") == []


def test_responses_of_math_rows() -> None:
    assert misjudged("responses.jsonl", MATH, "%s") == []


def test_boxed_answers() -> None:
    assert misjudged("answers.jsonl", MATH, "The result is \\boxed{%s}.", "So $\\boxed{%s}$") == []


@pytest.mark.parametrize(
    ("gold", "text", "right"),
    [
        ("4 million", "\\boxed{4} million", 1.0),
        ("4", "\\boxed{4} million", 0.0),
        ("4", "\\boxed{4} is the answer", 1.0),
        ("4", "\\boxed{4}, which is not a prime", 1.0),
        ("4", "\\boxed{2}+\\boxed{2}=\\boxed{4}", 1.0),
        ("4", "I had \\boxed{5} at first, but \\boxed{4} is right.", 1.0),
        # A box that is taken back.
        ("4", "The answer is not \\boxed{4}.", 0.0),
        ("4", "It can't be \\boxed{4}", 0.0),
        ("4", "$\\boxed{4}$ is wrong.", 0.0),
        ("4", "\\boxed{4} was my first guess, but it is 5.", 0.0),
        ("4", "\\boxed{4}是错的", 0.0),
        # Two boxes, of which each is offered.
        ("4", "It is \\boxed{3}, or possibly \\boxed{4}.", 0.0),
        ("4", "\\boxed{3} unless the note counts, then \\boxed{4}", 0.0),
        ("4", "If even \\boxed{3}, if odd \\boxed{4}", 0.0),
        ("4", "\\boxed{3}; \\boxed{4}", 0.0),
        ("4", "Answer 1: \\boxed{3}\nAnswer 2: \\boxed{4}", 0.0),
        ("4", "| \\boxed{3} | \\boxed{4} |", 0.0),
        ("4", "1. \\boxed{3}\n2. \\boxed{4}", 0.0),
        ("4", "\\boxed{3} ... \\boxed{4}", 1.0),
        ("4", "Answer in \\boxed{answer}: \\boxed{4}", 1.0),
        # Another number behind the box.
        ("4", "\\boxed{4}, or maybe 5", 0.0),
        ("4", "\\boxed{4} (or 5)", 0.0),
        ("4", "\\boxed{4} (5 if the header counts)", 0.0),
        ("4", "\\boxed{4}, or 4.0 as a decimal", 1.0),
        ("4", "\\boxed{4} (2 rows of 2)", 1.0),
        ("5 km", "\\boxed{5 km}, or 5000 m", 1.0),
        ("5 km", "\\boxed{5 km}, or 6 km", 0.0),
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
    "[Answer]\n$Paris$",
    "***[Answer]***\nParis",
    "## **[Answer]**\nParis",
    "**[Answer] Paris**",
    "[Answer]\n1\\. Paris",
    "[Answer]\n\\- Paris",
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


MARKED_TAGS = [
    "[Answer]**\nParis",
    "**[Answer]**\n\nParis",
    "**[ Answer ]**\nParis",
    "**［Answer］**\nParis",
    "[**Answer**]\nParis",
    "<strong>[Answer]</strong>\nParis",
    "<u>[Answer]</u>\nParis",
    "***[Answer]***: Paris",
    "_[Answer]_\nParis",
    "~~[Answer]~~\nParis",
    "**[Answer]** Paris",
    "**[Answer]**\n**Paris**",
    "**[Answer]:** **Paris**",
    "# [Answer]\nParis",
    "#### **[Answer]**:\nParis",
    "- **[Answer]**\nParis",
    "1. **[Answer]**\nParis",
    "> **[Answer]**\n> Paris",
    "**`[Answer]`**\nParis",
    "`[Answer]` Paris",
    "**[答案]**\nParis",
    "**【答案】**\nParis",
    "**[答案]：** Paris",
    "**\\[Answer\\]**\nParis",
    "[Answer]\nParis\n**[/Answer]**",
    "[Answer]\n*Paris*",
    "[Answer]\n__Paris__",
    "[Answer]\n***Paris***",
    '[Answer]\n"Paris"',
    "**[Answer]**\r\nParis",
    "\u200b**[Answer]**\nParis",
    "The final part:\n**[Answer]**\nParis",
    "**Final [Answer]**\nParis",
    "**[Answer]**:\n\n1. Paris",
    "**[Answer]**\n① Paris",
    "**[Answer]**\n[1] Paris",
    "**[Answer]**\n(1) Paris",
    "**[Answer]**\n1: Paris",
    "**[Answer]**\na) Paris",
    "[Answer] : Paris",
    "[Answer] - Paris",
    "[Answer] → Paris",
    "**[answer]**\nparis",
    "__[ANSWER]__\nPARIS",
    "<h3>[Answer]</h3>\nParis",
    "<b>[Answer]</b>: Paris",
    "<i>[Answer]</i>\nParis",
    "<em>[Answer]</em>\nParis",
    "<p>[Answer]</p>\nParis",
    "[Answer]\n<b>Paris</b>",
    "**[Answer]**\n```text\nParis\n```",
    "**[Answer]**\n---\nParis",
    "[Answer]\n====\nParis",
    "---\n**[Answer]**\nParis\n---",
    "**[Answer] **\nParis",
    "** [Answer] **\nParis",
    "**[Answer]\nParis**",
    "*[Answer]*\n*Paris*",
    "[Answer]\nParis  \n",
    "**[Answer]**\u3000Paris",
    "$\\textbf{[Answer]}$\nParis",
    "\\textbf{[Answer]}\nParis",
    "$\\boxed{\\text{[Answer]}}$\nParis",
    "\\[\\textbf{[Answer]}\\]\nParis",
    "[Answer]\n\\boxed{\\text{Paris}}",
    "[Answer]\n$\\text{Paris}$",
    "[Answer]\n==Paris==",
    "[Final Answer]\nParis",
    "[Answer]\nThe answer is Paris",
    "[Answer]\nThe correct answer is: Paris.",
    "[Answer]\nAnswer: Paris",
    "[答案]\n答案是Paris",
    "答案：Paris",
    "[答案]\n《Paris》",
    "[Answer]\n<answer>Paris</answer>",
    "[Answer]\n<answer>\nParis\n</answer>",
    "[Answer]Paris[/Answer]",
    "[Answer]\nParis<|im_end|>",
]
MARKED_LISTS = [
    "① a\n② b\n③ c",
    "[1] a\n[2] b\n[3] c",
    "[a]\n- [b]\n1. [c]",
    "(1) a\n(2) b\n(3) c",
    "1) a\n2) b\n3) c",
    "1.a\n2.b\n3.c",
    "1、a\n2、b\n3、c",
    "一、a\n二、b\n三、c",
    "（一）a\n（二）b\n（三）c",
    "（1）a\n（2）b\n（3）c",
    "+ a\n+ b\n+ c",
    "◦ a\n○ b\n● c",
    "▪ a\n■ b\n► c",
    "1: a\n2: b\n3: c",
    "1 - a\n2 - b\n3 - c",
    "**1.** a\n**2.** b\n**3.** c",
    "- [ ] a\n- [x] b\n- c",
    "* a\n* b\n* c",
    "a)\ta\nb)\tb\nc)\tc",
    "(a) a\n(b) b\n(c) c",
    "A. a\nB. b\nC. c",
    "i. a\nii. b\niii. c",
    "⑴a\n⑵b\n⑶c",
    "1．a\n2．b\n3．c",
    "第一，a\n第二，b\n第三，c",
    "<li>a</li>\n<li>b</li>\n<li>c</li>",
    "<ul>\n<li>a</li>\n<li>b</li>\n<li>c</li></ul>",
    "a<br>\nb<br />\nc</s>",
    "1. **a**\n2. **b**\n3. **c**",
    "| a |\n| b |\n| c |",
    '"a"\n"b"\n"c"',
    "`a`\n`b`\n`c`",
    "•a\n•b\n•c",
    "·a\n·b\n·c",
    "> a\n> b\n> c",
    "1- a\n2- b\n3- c",
    "❶ a\n❷ b\n❸ c",
    "1️⃣ a\n2️⃣ b\n3️⃣ c",
    "'a',\n'b',\n'c'",
    "Step 1: a\nStep 2: b\nStep 3: c",
]
MARKED_TABLES = [
    '<answer>````json\n{"data": [["a", 1]]}\n````</answer>',
    '<answer>```json {"data": [["a", 1]]} ```</answer>',
    '<answer>```{"data": [["a", 1]]}```</answer>',
    '<answer>\r\n```json\r\n{"data": [["a", 1]]}\r\n```\r\n</answer>',
    '```json\n{"data": [["a", 1]]}\n```\n',
    '<answer>json\n{"data": [["a", 1]]}</answer>',
    '<answer><pre><code>{"data": [["a", 1]]}</code></pre></answer>',
    '<answer>\n{"data": [["a", 1]]}\n```</answer>',
    '\ufeff<answer>\ufeff{"data": [["a", 1]]}</answer>',
    '<answer>```python\n{"data": [["a", 1]]}\n```</answer>',
    '<answer>\\boxed{{"data": [["a", 1]]}}</answer>',
    '**<answer>** ```json\n{"data": [["a", 1]]}\n``` **</answer>**',
    '`<answer>{"data": [["a", 1]]}</answer>`',
    '<answer>data = {"data": [["a", 1]]}</answer>',
    'I write it between <answer> and </answer> tags.\n<answer>{"data": [["a", 1]]}</answer>',
    'The `<answer>` tag holds the table. <answer>{"data": [["a", 1]]}</answer>',
    '<answer>...</answer> is the form. <answer>{"data": [["a", 1]]}</answer>',
    '<answer>{"data": [...]}</answer> is the form. <answer>{"data": [["a", 1]]}</answer>',
    'In <answer> tags as asked: {"data": [["a", 1]]}',
    '</answer> closes it. <answer>{"data": [["a", 1]]}</answer>',
    '<answer>{"data": [["a", 1]]}</answer> <- in <answer></answer>',
    '<answer>{"data": [["a", 1]]}</answer>\nThe <answer> tag holds it as asked.',
    '<answer>{"data": [["a", 1]]}</answer>\nNote: \'data\' in <answer> is {rows}.',
    '<answer>```json\n{"data": [["a", 1]]}\n```</answer>\n```json\n```',
    '&lt;answer&gt;{"data": [["a", 1]]}&lt;/answer&gt;',
    '<answer >{"data": [["a", 1]]}</answer >',
    '< answer >{"data": [["a", 1]]}</ answer >',
    '<ANSWER>{"data": [["a", 1]]}</ANSWER>',
    '<answer>\n~~~\n{"data": [["a", 1]]}\n~~~\n</answer>',
    '<answer>```jsonc\n{"data": [["a", 1]]}\n```</answer>',
    '<answer>{"data": [["a", 1]]},</answer>',
    '<answer>{"data": [["a", 1]]};</answer>',
    '<answer>Rows {a}: {"data": [["a", 1]]}</answer>',
    '<answer>{"data": [["a", 1]]}\n\nNote: {x} rows</answer>',
    '<answer>{"data": [["a", 1]]} // done</answer>',
    '<answer>\n```json\n{\n  "data": [\n    ["a", 1]\n  ]\n}\n```\n</answer>',
    '<answer>{"data": [["a", 1]]}</answer></answer>',
    '<answer><answer>{"data": [["a", 1]]}</answer></answer>',
    "<answer>{'data': [['a', 1]]}</answer>",
    '<answer>{"data": [["a", 1,],],}</answer>',
    "```python\n{'data': [('a', 1)]}\n```",
    "<answer>{“data”: [[“a”, 1]]}</answer>",
    '<answer>{data: [["a", 1]]}</answer>',
    '<answer>table = {"data": [["a", 1],]}</answer>',
    '<answer>{"data": [["a", 1.0]]}</answer>',
    '<answer>{"data": [["a", 1], // the only row\n]}</answer>',
    '<answer>{"data": [/* one */ ["a", 1]]}</answer>',
    'As asked, the JSON stands in <answer></answer>. {"data": [["a", 1]]}',
]


@pytest.mark.parametrize("text", MARKED_TAGS)
def test_a_tag_or_its_answer_in_other_marks(text: str) -> None:
    assert strict("longbench_pro", text, {"doc_ids": ["Paris"], "summary": "English"}, LINES) == 1.0
    assert strict("longbench_pro", text, {"doc_ids": ["Lyon"], "summary": "English"}, LINES) == 0.0


@pytest.mark.parametrize("text", MARKED_LISTS)
def test_a_list_in_any_marks(text: str) -> None:
    truth = {"doc_ids": ["a", "b", "c"], "summary": "English"}
    assert strict("longbench_pro", f"[Answer]\n{text}", truth, "T5.1 Full-Sentence Citation Alignment") == 1.0


@pytest.mark.parametrize("form", ["{}", "- {}", "1. {}", "2. **{}**", '"{}"', "3. `{}`;"])
@pytest.mark.parametrize(
    "gold",
    [
        "《红楼梦》", "Smith et al. (2019)", '"quoted"', "He said \"no\".", "(1)", "a)", "Section 4.2(b)", "__init__",
        "foo(bar)", "[2]", "`code`", "**bold** text", "«Le Monde»", "<b>x</b>", "(5) 3", "第3条（二）",
    ],
)  # fmt: skip
def test_a_gold_that_has_marks_itself(gold: str, form: str) -> None:
    """The marks around an item count on neither side."""
    truth = {"doc_ids": [gold], "summary": "English"}
    assert strict("longbench_pro", f"[Answer]\n{form.format(gold)}", truth, LINES) == 1.0


@pytest.mark.parametrize(("gold", "line"), [("《甲》", "甲"), ("It was late.", "It was late"), ('"a"', "“a”")])
def test_marks_that_the_gold_alone_has(gold: str, line: str) -> None:
    assert strict("longbench_pro", f"[Answer]\n{line}", {"doc_ids": [gold], "summary": "English"}, LINES) == 1.0


def test_marks_that_tell_two_golds_apart() -> None:
    truth = {"doc_ids": ["《甲》", "甲", "乙"], "summary": "Chinese"}
    wrong = strict("longbench_pro", "[Answer]\n甲\n乙", truth, "T2.1 Global Timeline Reconstruction")
    assert wrong == pytest.approx(1 / 3)
    assert strict("longbench_pro", "[Answer]\n《甲》\n甲\n乙", truth, "T2.1 Global Timeline Reconstruction") == 1.0


@pytest.mark.parametrize(
    ("line", "gold"),
    [
        ("-17", "17"),
        ("1.5", "5"),
        ("3 cats", "cats"),
        ("$5", "5"),
        ("not paris", "paris"),
        ("a b", "b"),
        ("12 b", "b"),
        ("paris, france", "paris"),
        ("2*3*4", "24"),
        ("section (b) 5", "section 5"),
        ("not the answer: paris", "not paris"),
        ("wrong answer: paris", "paris"),
    ],
)
def test_what_is_no_mark_of_a_list(line: str, gold: str) -> None:
    assert strict("longbench_pro", f"[Answer]\n{line}", {"doc_ids": [gold], "summary": "English"}, LINES) == 0.0


@pytest.mark.parametrize("line", ["- Treaty of **Paris**", "*Treaty* of Paris", "1. `Treaty` of __Paris__."])
def test_emphasis_within_an_item(line: str) -> None:
    truth = {"doc_ids": ["Treaty of Paris"], "summary": "English"}
    assert strict("longbench_pro", f"[Answer]\n{line}", truth, LINES) == 1.0


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("{'data': [['O\\'Brien', null], ['x', true], ['y', -1.5]],}", 1.0),
        ("{'data': [[\"O'Brien\", None], ['x', True], ['y', -1.5]]}", 1.0),
        ("{'data': [['O'Brien', None], ['x', True], ['y', -1.5]]}", 1.0),
        ("{'data': [['x', 'a // b'], ['x', True], // c\n]}", 1 / 4),
        ("{'data': [['x', True],]}", 1 / 3),
        ("{'data': [['x', 1 + 1]]}", 0.0),
        ("{'data': __import__('os')}", 0.0),
        ('{"data": [["x", true]]} {"data": []}', 0.0),
    ],
)
def test_a_table_as_a_literal(text: str, right: float) -> None:
    gold = '{"data": [["O\'Brien", null], ["x", true], ["y", -1.5]]}'
    assert strict("multitableqa_pretraining", f"<answer>{text}</answer>", {"golden_label": gold}) == right


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        ('"250.0"', "250.0", 1), ("250.0", '"250.0"', 1), ('"-3.00"', "-3", 1), ("true", '"true"', 1),
        ("null", '"null"', 1), ('"a b"', '"a\n b"', 1), ('"v5.0"', '"v5"', 0), ('"1.10"', '"1.1"', 0),
        ("true", "1", 0), ("null", '""', 0), ("250.0", '"2500"', 0), ("10", '"1"', 0),
    ],
)  # fmt: skip
def test_a_cell_as_a_number_and_as_text(gold: str, answer: str, right: float) -> None:
    text = f'<answer>{{"data": [["k", {answer}]]}}</answer>'
    assert strict("multitableqa_pretraining", text, {"golden_label": f'{{"data": [["k", {gold}]]}}'}) == right


@pytest.mark.parametrize("text", MARKED_TABLES)
def test_a_table_in_other_marks(text: str) -> None:
    assert strict("multitableqa_pretraining", text, {"golden_label": TABLE_JSON}) == 1.0
    assert strict("multitableqa_pretraining", text, {"golden_label": '{"data": [["b", 2]]}'}) == 0.0


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        ("120000000", ["一亿二千万", "1.2亿"], ["一亿二千", "1000020000000"]),
        ("1000020000000", [], ["一亿二千万"]),
        ("2300000000000", ["二万亿三千亿", "2.3 trillion"], ["二万亿三千"]),
        (
            "1/3",
            ["0.\\overline{3}", "0.\\bar{3}", "0.\\dot3", "0.(3)", "33.\\overline{3}\\%"],
            ["0.3", "0.\\overline{4}"],
        ),
        ("0.1\\overline{6}", ["1/6", "0.1(6)", "\\frac{1}{6}"], ["0.16", "1/7"]),
        ("1998", ["MCMXCVIII"], ["MCMXCVII"]),
        ("3/8", ["0,375"], ["0,376", "375"]),
        ("MIX", ["mix"], ["1009"]),
        ("i", ["\\sqrt{-1}"], ["-i", "\\sqrt{1}"]),
        ("2+3i", ["2+3\\sqrt{-1}"], ["2-3i"]),
        ("2\\pi", ["2pi", "2*pi"], ["pi"]),
        ("-5%", ["a 5% decrease"], ["a 5% increase"]),
        ("15", ["15 (3 × 5)", "3 \\times 5 = 15"], ["3 \\times 6 = 15", "2+2=15", "10+6 = 15"]),
        # What only nearly equals a decimal that is not written to six digits.
        ("0.1", ["0.1", "\\frac{1}{10}"], ["0.1+10^{-9}", "0.1 + 0.0000001"]),
        ("0.25", ["\\frac{1}{4}"], ["0.25+10^{-8}", "0.25 \\cdot 1.000001"]),
        ("1.414214", ["\\sqrt{2}"], ["\\sqrt{2.001}"]),
        ("1", ["\\frac{2}{2}"], ["1+10^{-20}", "1-10^{-20}"]),
    ],
)
def test_a_number_in_other_words(gold: str, right: list[str], wrong: list[str]) -> None:
    for answers, expected in ((right, 1.0), (wrong, 0.0)):
        for answer in answers:
            assert strict(MATH, f"\\boxed{{{answer}}}", {"golden_label": gold}) == expected, answer


def test_digits_behind_a_box_are_read_once() -> None:
    assert strict(MATH, f"\\boxed{{42}}{'1' * 400}=", {"golden_label": "42"}) is not None


@pytest.mark.parametrize("answer", ["10:30" * 60, r"2\sqrt{\binom{1}{\sqrt{1e308}}}", r"\binom{1}{\sqrt{10^{20}}}"])
def test_what_evaluates_without_end_is_wrong(answer: str) -> None:
    """Each level of nested quotients doubles the time; a binomial coefficient of roots is one of factorials."""
    assert strict(MATH, f"\\boxed{{{answer}}}", {"golden_label": "42"}) == 0.0
