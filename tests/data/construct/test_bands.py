"""The bands of the pass rate, by the cases of the golden file and by what holds for all of them."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl.data.construct.bands import ASK_LARGE, band

FILE = Path(__file__).parents[2] / "evaluation" / "cases.jsonl"
CASES = [
    case for line in FILE.read_text("utf-8").splitlines() if (case := json.loads(line))["benchmark"] == "pass_rate"
]
ORDER = ["discard", "hard", "medium", "easy"]


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_the_golden_cases(case):
    given = case["input"]
    if "small_unscored" in given:
        assert band(given["small_passes"], unscored_small=given["small_unscored"]) == case["ours"]
    else:
        assert band(given["small"], given["large"]) == case["ours"]


@pytest.mark.parametrize(
    ("small", "large", "expected"),
    [
        (6, None, "medium"), (5, None, "medium"), (3, 7, "medium"), (3, 6, "hard"), (3, 3, "hard"), (3, 1, "discard"),
        (3, None, ASK_LARGE), (8, 0, "easy"), (4, 0, "medium"),
    ],
)  # fmt: skip
def test_the_bounds(small, large, expected):
    assert band(small, large) == expected


@given(st.integers(0, 8), st.integers(0, 8))
def test_more_passes_never_make_it_harder(small, large):
    assert band(small, large) in ORDER
    if large < 8:
        assert ORDER.index(band(small, large + 1)) >= ORDER.index(band(small, large))
    if small < 8 and small + 1 != 4:  # where the small model begins to decide, the large one's verdict no longer counts
        assert ORDER.index(band(small + 1, large)) >= ORDER.index(band(small, large))


@given(st.integers(0, 8), st.integers(1, 8))
def test_an_unscored_rollout_is_never_a_failure(passes, unscored):
    if passes + unscored <= 8:
        assert band(passes, unscored_small=unscored) == f"undecided: rerun the {unscored}"
        assert band(0, passes, unscored_large=unscored) == f"undecided: rerun the {unscored}"
    else:
        with pytest.raises(ValueError, match="of 8 rollouts"):
            band(passes, unscored_small=unscored)
