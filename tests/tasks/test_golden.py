"""compat equals the original: every recorded case, and the reason for each that is not compared."""

import json
from pathlib import Path
from typing import Any

import pytest

from golongrl.tasks import UnknownTaskError, score

CASES: dict[str, dict[str, Any]] = {
    case["id"]: case
    for case in map(json.loads, (Path(__file__).parent / "golden" / "rewards.jsonl").read_text("utf-8").splitlines())
}

# The released code scores these sources, too, but the nine task types do not have them.
OTHER_SOURCES = {
    **dict.fromkeys(
        ("g1087", "g1089", "g1091", "g1092", "g1093", "g1094", "g1095", "g1097", "g1098", "g1100"), "math_dapo"
    ),
    "g1103": "math_dapo_math_verify",
    "g1104": "MATH##x",
    "g1106": "openai/gsm8k",
    **dict.fromkeys(("g1107", "g1108", "g1109", "g1110", "g1112", "g1113"), "retrieval_calculate"),
    "g1117": "nope",  # the original raises NotImplementedError
}
# The original crashes on these rows: their ground truth is invalid, so the response is unscored.
INVALID_ROWS = {
    "g0937": "golden_label must be a string, got NoneType",
    "g0939": "no golden_label",
    "g0940": "expected a mapping, got str",
    "g1081": "golden_label must be a string or strings, got NoneType",
    "g1083": "golden_label must be a string or strings, got int",
    "g1115": "no summary",
}
# The original crashes on these responses; ours only hold a wrong item, so they have a score.
SCORED_HERE = {
    "g0641": 0.23981246656813146,  # a lone surrogate ends trec_eval's process; the second of two golds stands second
    "g1013": 0.0,  # an integer too long for int() is a wrong cell
}
COMPARED = sorted(CASES.keys() - OTHER_SOURCES.keys() - INVALID_ROWS.keys() - SCORED_HERE.keys())


def run(case: dict[str, Any]) -> Any:
    return score(case["data_source"], case["solution_str"], case["ground_truth"], case["extra_info"], "compat")


def test_every_case_is_compared_or_has_its_reason() -> None:
    assert len(CASES) == 811
    assert len(COMPARED) == 783
    assert not [key for key in COMPARED if CASES[key]["expected_error"]]


def test_compat_equals_the_original() -> None:
    # The original's recursion overflows on long sentences; the number it would have reached is recorded beside.
    expected = {
        key: CASES[key].get("expected_score_no_recursion_limit", CASES[key]["expected_score"]) for key in COMPARED
    }
    outcomes = {key: run(CASES[key]) for key in COMPARED}
    other = {
        key: (CASES[key]["note"], outcome, expected[key])
        for key, outcome in outcomes.items()
        if outcome.score != pytest.approx(expected[key], abs=1e-9)
    }
    assert other == {}


@pytest.mark.parametrize(("key", "source"), OTHER_SOURCES.items())
def test_other_sources_are_unknown(key: str, source: str) -> None:
    with pytest.raises(UnknownTaskError, match=source):
        run(CASES[key])


@pytest.mark.parametrize(("key", "reason"), INVALID_ROWS.items())
def test_invalid_rows_are_unscored(key: str, reason: str) -> None:
    outcome = run(CASES[key])
    assert (outcome.status, outcome.score) == ("unscored", None)
    assert reason in outcome.reason


@pytest.mark.parametrize(("key", "expected"), SCORED_HERE.items())
def test_crashes_of_the_original_that_have_a_score(key: str, expected: float) -> None:
    assert run(CASES[key]).score == pytest.approx(expected, abs=1e-9)
