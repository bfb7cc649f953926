"""No input brings a metric down: hostile responses and labels end in a score in [0, 1] or a reason, never in an
exception."""

import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golongrl.tasks import TASKS, Outcome, UnknownTaskError, math_answer, score, task_of
from golongrl.tasks.gold import own_score
from golongrl.tasks.outcome import TooLargeError
from golongrl.tasks.registry import LONGBENCH_PRO

# One way into each of the nine types, and into both sources of T2.
ROUTES = [(t.data_source, t.data_source) for t in TASKS if t.data_source] + [
    (LONGBENCH_PRO, t.subtasks[0]) for t in TASKS if t.subtasks
]
IDS = [f"{source}-{mode[:4]}" for source, mode in ROUTES]
TRUTH = {"doc_ids": ["a", "b c", "d"], "golden_label": '{"data": [["A", 1]]}', "summary": "English"}
MODES = ("compat", "strict")

HOSTILE = {
    "empty": "",
    "nul": "\0" * 50,
    "surrogates": "bad\ud800\udfff",
    "one character": "x" * 1_000_000,
    "one line break": "\n" * 1_000_000,
    "spaces": " " * 1_000_000,
    "asterisks": "*" * 1_000_000 + "[Answer]",
    "open tags": "<answer>" * 100_000,
    "open braces": "<answer>" + "{" * 1_000_000,
    "answer tags": "[Answer]" * 100_000,
    "options": "The correct answer is (A)" + " (B)" * 100_000,
    "commas": "The correct answer is (A)" + "," * 1_000_000,
    "boxes": "\\boxed{" * 100_000,
    "sentences": "a. " * 20_000,
    "10,000 items": "[Answer]\n" + "\n".join(f"item {i}" for i in range(10_000)),
    "deep parentheses": "\\boxed{" + "(" * 200 + "1" + ")" * 200 + "}",
    "deep braces": "{" * 200 + "1" + "}" * 200,
    "deep fractions": "\\boxed{" + r"\frac{1}{" * 30 + "2" + "}" * 30 + "}",
    "power tower": r"\boxed{9^{9^{9}}}",
    "tower in an expression": r"\boxed{x + \frac{1}{10^{10^{10}}}}",
    "factorials": r"\boxed{9!!!}",
    "power of a sum": r"\boxed{(x+1)^{99999}}",
    "binomial": r"\boxed{\binom{1000000000}{50000000}}",
    "5,000 digits": "\\boxed{" + "7" * 5_000 + "}",
    "5,000 digits in JSON": '<answer>{"data": [[' + "7" * 5_000 + "]]}</answer>",
    "invalid JSON": '<answer>{"data": [["a", 1]',
    "deep JSON": "<answer>" + "[" * 100_000,
    "division by zero": r"\boxed{\frac{1}{0}}",
    "regex bait": "final answer is $" * 40,
}


def check(outcome: Outcome) -> None:
    if outcome.status == "scored":
        assert outcome.score is not None
        assert math.isfinite(outcome.score)
        assert 0.0 <= outcome.score <= 1.0
    else:
        assert outcome.score is None
        assert outcome.reason


def judge(route: tuple[str, str], response: Any, truth: Any, mode: Any) -> Outcome:
    outcome = score(route[0], response, truth, {"reward_mode": route[1]}, mode)
    check(outcome)
    return outcome


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("response", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_responses(response: str, mode: str) -> None:
    for route in ROUTES:
        judge(route, "<think>r</think>" + response, TRUTH, mode)
        judge(route, response, TRUTH, mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("label", [None, 3, 2.5, True, [], [None], {}, "", "\0", "\ud800", "[" * 5000])
def test_hostile_labels(label: object, mode: str) -> None:
    response = "<think>r</think>[Answer]\n5"
    for route in ROUTES:
        judge(route, response, {"doc_ids": label, "golden_label": label, "summary": label}, mode)
        judge(route, response, {**TRUTH, "doc_ids": [label, "a"], "golden_label": label}, mode)
        judge(route, response, label, mode)
        judge(route, response, [TRUTH, label], mode)


@pytest.mark.parametrize("response", [None, 3, b"</think>", ["</think>"]])
def test_a_response_that_is_no_text_is_unscored(response: object) -> None:
    for route in ROUTES:
        assert judge(route, response, TRUTH, "compat").status == "unscored"


FRAGMENTS = st.sampled_from(
    [
        "<think>",
        "</think>",
        "[Answer]",
        "[答案]",
        "\n",
        "a",
        "b c",
        "d.",
        "- ",
        "<answer>",
        "</answer>",
        '{"data": [["A", 1]]}',
        "[",
        "}",
        "The correct answer is ",
        "(A)",
        "*",
        "\\boxed{",
        "\\frac{1}{2}",
        "42",
        "x",
        "=",
        ",",
        "^{",
        "$",
        "\\sqrt",
        "%",
        "。",
        "中国",
        "\0",
        "\ud800",
    ]
)
TEXTS = st.lists(FRAGMENTS | st.text(max_size=8), max_size=25).map("".join)


@settings(max_examples=30)
@given(body=TEXTS, prefix=st.sampled_from(["", "</think>", "<think>r</think>"]), golds=st.lists(TEXTS, max_size=4))
@pytest.mark.parametrize("route", ROUTES, ids=IDS)
def test_fuzzed(route: tuple[str, str], body: str, prefix: str, golds: list[str]) -> None:
    truth = {"doc_ids": golds, "golden_label": golds[0] if golds else "42", "summary": "Chinese"}
    for mode in MODES:
        judge(route, prefix + body, truth, mode)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda v: st.lists(v) | st.dictionaries(st.text(max_size=5), v),
)


@settings(max_examples=30)
@given(truth=JSON | st.dictionaries(st.sampled_from(["doc_ids", "golden_label", "summary", "data"]), JSON))
@pytest.mark.parametrize("route", ROUTES, ids=IDS)
def test_fuzzed_ground_truths(route: tuple[str, str], truth: object) -> None:
    for mode in MODES:
        judge(route, "</think>[Answer]\na", truth, mode)


@pytest.mark.parametrize(
    "name", ["power tower", "tower in an expression", "factorials", "power of a sum", "binomial", "deep braces"]
)
def test_what_would_hang_the_algebra_is_refused_with_a_reason(name: str) -> None:
    """Strict gives 0, so that it buys no way out of a zero; where the gold is the tower, the row is at fault."""
    math = ("math_longcot_math_verify", "")
    response, label = "</think>" + HOSTILE[name], HOSTILE[name].removeprefix("\\boxed{").removesuffix("}")
    compat, strict = (judge(math, response, {"golden_label": "42"}, mode) for mode in MODES)
    assert compat.status == "unscored"
    assert (strict.status, strict.score) == ("scored", 0.0)
    assert "answer is" in compat.reason
    assert strict.reason.startswith("answer is")
    invalid = judge(math, "</think>It is 42 or $43$.", {"golden_label": label}, "strict")
    assert invalid.status == "unscored"
    assert "invalid ground truth: the golden answer is" in invalid.reason


COSTLY_GOLDS = {
    "9**9**9": "a power of a power",
    "9^9^9": "a power of a power",
    "9^{9^{9}}": "digits",
    "{" * 900 + "1" + "}" * 900: "nested too deeply",
    "{" * 2_000 + "1" + "}" * 2_000: "longer than",
    "(" * 900 + "1" + ")" * 900: "nested too deeply",
    "7" * 200_000: "longer than",
    r"\sum_{k=1}^{10^{7}} k^{k}": "digits",
    r"\prod_{k=1}^{10^6} (k+1)": "digits",
    r"\gcd(10^{100000}+1,10^{99999}+3)": "five digits",
    r"\lfloor \pi^{1000000} \rfloor": "five digits",
    r"\log(2^{999999}+1)": "digits",
    "(x+y+z+w)^{100}": "digits",
    r"\{" + ",".join(map(str, range(201))) + r"\}": "too complex",
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("gold", COSTLY_GOLDS, ids=[gold[:20] for gold in COSTLY_GOLDS])
def test_a_costly_gold_is_the_rows_fault(gold: str, mode: Any) -> None:
    """Each answer of its row would pay for it."""
    route, truth = ("math_longcot_math_verify", ""), {"golden_label": gold}
    for outcome in (own_score(route[0], truth, {}, mode), judge(route, r"</think>\boxed{\sqrt{5}+x}", truth, mode)):
        assert outcome.status == "unscored"
        assert outcome.reason.startswith("invalid ground truth: the golden answer is")
        assert COSTLY_GOLDS[gold] in outcome.reason


@pytest.mark.parametrize(
    "gold", ["2^{10000}", "(x+1)^{1000}", r"\sum_{k=1}^{10} k", "2^{3^{2}}", "2^3^2", r"\binom{50}{25}", "20!"]
)
@pytest.mark.parametrize("mode", MODES)
def test_a_gold_of_usual_size_is_compared(gold: str, mode: Any) -> None:
    assert own_score("math_longcot_math_verify", {"golden_label": gold}, {}, mode).status == "scored"


def test_unknown_tasks_are_named() -> None:
    with pytest.raises(UnknownTaskError, match="'nope'"):
        score("nope", "</think>a", TRUTH, {})
    with pytest.raises(UnknownTaskError, match=r"'T99\.9 Nothing'"):
        score(LONGBENCH_PRO, "</think>a", TRUTH, {"reward_mode": "T99.9 Nothing"})
    with pytest.raises(UnknownTaskError, match="None"):
        task_of(None, None)
    with pytest.raises(ValueError, match="mode"):
        score("EM", "</think>a", TRUTH, {}, "lenient")  # type: ignore[arg-type]


def test_the_table_of_tasks() -> None:
    assert [t.type for t in TASKS] == [f"T{i}" for i in range(1, 10)]
    assert sum(len(t.subtasks) for t in TASKS) == 25
    task = task_of(LONGBENCH_PRO, "T6.2 Targeted Subset Cluster Identification")
    assert (task.type, task.metric, task.key) == ("T3", "F1", "F1")
    task = task_of("selection", "selection_long")
    assert (task.type, task.metric, task.key) == ("T2", "Accuracy", "selection_long")


def test_importing_tasks_loads_no_library() -> None:
    heavy = "{'sympy', 'math_verify', 'rjieba', 'numpy', 'torch'}"
    heavy = f"import sys, golongrl.tasks; sys.exit(str(sys.modules.keys() & {heavy}))"
    found = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, timeout=240, check=False)
    assert found.stderr.strip() == "set()"


# Each takes from seconds to hours where sympy may evaluate, sum, simplify or solve it.
OUTLASTING = [
    r"\sum_{k=1}^{10^{7}} k^{k}", r"\gcd(10^{100000}+1,10^{99999}+3)", r"\sum_{k=1}^{10000} \frac{1}{k^2}",
    r"\sum_{k=1}^{\infty} \frac{\sin k}{k^3+\ln k}", r"\prod_{k=1}^{10^6} (k+1)", r"\binom{999999}{500000}",
    r"\int_0^1 \sin(x^x) e^{x^3}\ln(x+\cos x) dx", r"\lfloor \pi^{1000000} \rfloor", r"\sin(10^{100000})",
    r"\log(2^{999999}+1)", r"\sqrt{2^{999999}+1}", r"(x+y+z+w)^{100}", r"(x+y)^{50}(x-y)^{50}(x+z)^{50}",
    r"\Gamma(1000000)", r"(1+\sqrt{2})^{99999}", r"\tan(\frac{\pi}{240})", r"\gcd((x+1)^{500}-1,(x+1)^{499}-1)",
    r"(1+x)^{999}-(1-x)^{999}", r"|x-|x-|x-|x-|x|||||", r"x^{30}+x+1 \le 0", r"((5!)!)!", r"9^{9^9} \mod 7",
    "x^" * 20 + "1", r"\pi ^ 12^" * 10 + "y",
]  # fmt: skip


@pytest.mark.parametrize("gold", ["5", "x>3"])
@pytest.mark.parametrize("answer", OUTLASTING)
def test_strict_bounds_the_work_itself(answer: str, gold: str) -> None:
    outcome = judge(("math_longcot_math_verify", ""), f"</think>\\boxed{{{answer}}}", {"golden_label": gold}, "strict")
    assert (outcome.status, outcome.score) == ("scored", 0.0)
    same = judge(("math_longcot_math_verify", ""), f"</think>\\boxed{{{answer}}}", {"golden_label": answer}, "strict")
    assert same.score == 1.0


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        ("1", r"\tan(\frac{\pi}{4})", 1.0),
        (r"\sqrt{x^2}", "x", 0.0),
        ("|x|", "x", 0.0),
        ("x", "|x|", 0.0),
        (r"\sqrt{4-2\sqrt{3}}", r"\sqrt{3}-1", 1.0),
        (r"\sqrt{4-2\sqrt{3}}", r"\sqrt{3}-2", 0.0),
        (r"\sin(2x)", r"2\sin(x)\cos(x)", 1.0),
        (r"\sin(2x)", r"2\sin(x)\cos(y)", 0.0),
        ("0", r"\sin^2 x+\cos^2 x-1", 1.0),
        ("0", "x-x", 1.0),
        ("x^2", "y^2", 0.0),
        (r"\ln(6)", r"\ln(2)+\ln(3)", 1.0),
        (r"\frac{1}{2}", r"\int_0^1 x dx", 0.0),
        (r"\int_0^1 x dx", r"\int_0^1 t dt", 1.0),
        (r"\int_0^1 x dx", r"\int_0^1 2x dx", 0.0),
        ("0.333333", r"\frac{1}{3}", 1.0),
        (r"\frac{1}{3}", "0.33", 0.0),
        ("x^{2023}-1", "-1+x^{2023}", 1.0),
        ("2^{100}", "4^{50}", 1.0),
        ("(x+1)^{10}", "(1+x)^{10}", 1.0),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&2\\3&5\end{pmatrix}", 0.0),
        (r"\{1,2\}", r"\{1,3\}", 0.0),
        ("x>3", "3<x", 1.0),
        ("x>3", "x>4", 0.0),
        ("x^2=4", "x^2-4=0", 1.0),
    ],
)
def test_values_decide_without_simplifying(gold: str, answer: str, right: float) -> None:
    outcome = judge(("math_longcot_math_verify", ""), f"</think>\\boxed{{{answer}}}", {"golden_label": gold}, "strict")
    assert outcome.score == right


@pytest.mark.parametrize(("left", "right"), [("[", "]"), ("x^{", "}"), ("(x+", ")")])
def test_deep_brackets_cost_no_parsing(left: str, right: str) -> None:
    outcome = _math(f"\\boxed{{{left * 39}5{right * 39}}}", "6")
    assert outcome.score == 0.0


def test_deep_parentheses_around_a_number_are_the_number() -> None:
    assert _math(f"\\boxed{{{'(' * 39}5{')' * 39}}}", "5").score == 1.0


def _math(answer: str, gold: str) -> Outcome:
    return judge(("math_longcot_math_verify", ""), f"</think>{answer}", {"golden_label": gold}, "strict")


def test_a_refused_gold_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []

    def refuse(gold: str) -> None:
        looked.append(gold)
        raise TooLargeError("answer is too long")

    monkeypatch.setattr(math_answer, "refuse_costly_gold", refuse)
    for _ in range(3):
        outcome = _math(r"\boxed{\sqrt{5}+x}", "q+w+7")
        assert outcome.reason == "invalid ground truth: the golden answer is too long"
    assert looked == ["q+w+7"]
