"""Chinese words are cut as jieba 0.42.1 cuts them, Latin runs between them included."""

from collections.abc import Callable

import pytest

from golongrl.tasks import score
from golongrl.tasks.rouge import rouge_l, rouge_l_strict

# The right side was made with jieba itself, white space aside.
CUTS = [
    ("我来到北京清华大学", "我 来到 北京 清华大学"),
    ("于2019-07-14发布model_v2.3", "于 2019 - 07 - 14 发布 model _ v2.3"),
    ("错误err-1042占12.5%", "错误 err - 1042 占 12.5%"),
    ("他写c++和c#", "他 写 c++ 和 c#"),
]


@pytest.mark.parametrize(("text", "words"), CUTS)
def test_chinese_words(text: str, words: str) -> None:
    from golongrl.tasks.rouge import _cut

    assert _cut(text).split() == words.split()


def test_a_summary_equal_to_its_reference_is_worth_one_up_to_epsilon() -> None:
    for text, _ in CUTS:
        assert rouge_l([text], text, chinese=True) == pytest.approx(1.0, abs=1e-7)


@pytest.mark.parametrize("rouge", [rouge_l, rouge_l_strict])
def test_a_repeated_reference_is_judged_once(rouge: Callable[..., float]) -> None:
    text = " ".join(f"item {i}" for i in range(10_000))
    assert rouge(["item 7", "b"] * 5_000, text, chinese=False) == rouge(["item 7", "b"], text, chinese=False) > 0


def test_a_long_summary_is_scored_where_recursion_would_end() -> None:
    text = " ".join(f"w{i}" for i in range(5000))
    truth = {"doc_ids": [text], "golden_label": "", "summary": "English"}
    mode = {"reward_mode": "T4.2 Query-Focused Summary"}
    assert score("longbench_pro", f"</think>[Answer]{text}", truth, mode, "strict").score == pytest.approx(
        1.0, abs=1e-7
    )


def test_a_reference_without_a_word_is_an_invalid_row() -> None:
    truth = {"doc_ids": ["a b", "..."], "golden_label": "", "summary": "English"}
    mode = {"reward_mode": "T4.2 Query-Focused Summary"}
    assert score("longbench_pro", "</think>a b", truth, mode, "compat").score == 0.0
    assert "a reference has no word" in score("longbench_pro", "</think>a b", truth, mode, "strict").reason


def test_strict_counts_words() -> None:
    """Three of the reference's five words stand in order in the text's six; "a" counts twice, as often as it stands."""
    assert rouge_l_strict(["a b a. c d"], "a x a. y z d", chinese=False) == pytest.approx(2 * 3 / (5 + 6))
