"""The short ways around the LaTeX parser find what math-verify finds; what crashes inside it is never a zero."""

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golongrl.tasks import Outcome, algebra, math_library, score
from golongrl.tasks.math_answer import equal
from golongrl.tasks.outcome import UnscorableError


def reference(gold: str, text: str) -> float:
    """The original's rule with math-verify alone, nothing spared."""
    parsed, _ = math_library.call("parse", text[-500:], parsing_timeout=None)
    if len(parsed) < 2:
        return 0.0
    if parsed[1] == gold:
        return 1.0
    golden, _ = math_library.call("parse", f"\\boxed{{{gold}}}", parsing_timeout=None)
    return float(math_library.call("verify", golden, parsed, timeout_seconds=None)[0])


NUMBERS = st.integers(0, 99).map(str) | st.sampled_from(["0.5", "1.25", "0.333333", "12,345", "1000000", "3.0", "007"])
ATOMS = NUMBERS | st.sampled_from(["x", "y", "n", "\\pi", "\\sqrt{2}", "2x", "3\\pi", "xy", "x^2", "\\sqrt{12}"])


def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.tuples(inner, inner)
    return st.one_of(
        pairs.map("+".join),
        pairs.map("-".join),
        pairs.map(lambda p: f"({p[0]})({p[1]})"),
        pairs.map(lambda p: f"\\frac{{{p[0]}}}{{{p[1]}}}"),
        pairs.map(lambda p: f"{p[0]}\\cdot {p[1]}"),
        pairs.map(lambda p: f"{p[0]}/{p[1]}"),
        inner.map(lambda one: f"({one})^2"),
        inner.map(lambda one: f"-{one}"),
    )


FORMULAS = st.recursive(ATOMS, larger, max_leaves=4)
PAIRS = st.tuples(FORMULAS, FORMULAS) | FORMULAS.flatmap(
    # Forms of one value: half of all answers should be right.
    lambda one: st.tuples(
        st.just(one),
        st.sampled_from([one, f"({one})", f"{one}+0", f"1\\cdot ({one})", f"\\frac{{2({one})}}{{2}}", f"0+{one}"]),
    )
)
FRAMES = [
    "\\boxed{%s}",
    "so $\\boxed{%s}$.",
    "\\[\\boxed{%s}\\]",
    "$%s$",
    "the answer is $%s$ I hope",
    "x is 3, \\(%s\\)",
]


def agree(gold: str, text: str) -> None:
    expected = reference(gold, text)
    try:
        assert equal([gold], text) == expected, (gold, text)
    except UnscorableError:
        assert expected == 0.0


@settings(max_examples=60)
@given(pair=PAIRS, frame=st.sampled_from(FRAMES))
def test_any_formula_scores_as_by_math_verify(pair: tuple[str, str], frame: str) -> None:
    gold, answer = pair
    agree(gold, frame % answer)


SOUP = st.lists(
    st.sampled_from(
        [
            "x",
            "y",
            "2",
            "3",
            "0.5",
            ",",
            "+",
            "-",
            "*",
            "/",
            "^",
            "(",
            ")",
            "{",
            "}",
            "\\frac",
            "\\sqrt",
            "\\pi",
            " ",
            "=",
        ]
    ),
    max_size=9,
).map("".join)


@settings(max_examples=80)
@given(gold=FORMULAS | SOUP, answer=SOUP)
def test_any_soup_of_signs_scores_as_by_math_verify(gold: str, answer: str) -> None:
    agree(gold, f"\\boxed{{{answer}}}")


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("x^2+3x-4", "(x+4)(x-1)"),
        ("\\frac{2}{x^2-1}", "\\frac{1}{x-1}-\\frac{1}{x+1}"),
        ("3.14", "3.14"),
        ("12345", "12,345"),
        ("\\frac{\\sqrt{3}}{2}", "\\frac{\\sqrt{3}}{2}"),
        ("2(3)", "5"),  # a mixed number
    ],
)
def test_equal_forms(gold: str, answer: str) -> None:
    assert equal([gold], f"so $\\boxed{{{answer}}}$") == reference(gold, f"so $\\boxed{{{answer}}}$") == 1.0


@pytest.mark.parametrize(
    "text", [r"$\boxed{5}$%", r"$\boxed{5}$ percent", r"$\boxed{5}$ and $7$", r"\boxed{5} percent"]
)
@pytest.mark.parametrize("gold", ["5", "0.05", "\\frac{1}{20}", "5\\%"])
def test_percent_signs_behind_a_box(gold: str, text: str) -> None:
    agree(gold, text)


@pytest.mark.parametrize(
    ("gold", "answer", "expected"),
    [
        ("x^2-1", "(x-1)(x+1)", True),
        ("x^2-1", "x^2-2", False),
        ("\\frac{1}{3}", "0.333333", None),  # equal by rounding: not for us to say
        ("0.1", "0.10", True),
        ("\\sqrt{12}", "2\\sqrt{3}", None),
        ("\\sqrt{12}", "2\\sqrt{5}", False),
        ("\\frac{1}{x-x}", "1", None),
    ],
)
def test_plain_formulas(gold: str, answer: str, expected: bool | None) -> None:
    a, b = algebra.read(gold), algebra.read(answer)
    assert a is not None
    assert b is not None
    assert algebra.same(a, b) is expected


@pytest.mark.parametrize(
    "text", ["x", "(x)", "2 3", "2(3)", "e", "2i", "abc", "f(x)", "x^y", "1,23", "x=2", "", "x+", "--2"]
)
def test_no_plain_formulas(text: str) -> None:
    assert algebra.read(text) is None


@pytest.mark.full
def test_letters_side_by_side_are_products_to_math_verify() -> None:
    for pair in itertools.product("abckmnpqrstuvwxyz", repeat=2):
        text = "".join(pair)
        if algebra.read(f"3{text}") is not None:
            agree(f"3{pair[0]}\\cdot {pair[1]}", f"\\boxed{{3{text}}}")


def crashed(gold: str, answer: str, mode: Any) -> Outcome:
    return score("math_longcot_math_verify", f"</think>\\boxed{{{answer}}}", {"golden_label": gold}, {}, mode)


@pytest.mark.parametrize("mode", ["compat", "strict"])
def test_a_crash_inside_the_library_is_unscored(mode: str) -> None:
    """1/0 as a gold makes the comparison itself raise, which the library turns into "not equal"."""
    golden, _ = math_library.call("parse", "\\boxed{\\frac{1}{0}}", parsing_timeout=None)
    answer, crash = math_library.call("verify", golden, golden[:1], timeout_seconds=None)
    assert answer is False
    assert isinstance(crash, ValueError)
    outcome = crashed("\\frac{1}{0}", "x^2+7", mode)
    assert (outcome.status, outcome.score) == ("unscored", None)
    assert outcome.reason == "metric crashed: ValueError: Can't evaluate nan or zoo"
    assert crashed("\\frac{1}{0}", "\\frac{1}{0}", mode).score == 1.0  # equal as strings: nothing to compare
