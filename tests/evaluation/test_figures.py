"""Budgets and figures: what fits, means in both readings, clustered errors."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl.evaluation import aggregate, budget
from golongrl.evaluation.errors import EvaluationError
from golongrl.evaluation.kinds import Message, Sample
from golongrl.evaluation.registry import BENCHMARKS
from golongrl.evaluation.report import page
from golongrl.evaluation.report.compare import difference, lines

FITS = [
    ((100, 51_200, 182_272, None), (100, 51_200)),
    ((200_000, 51_200, 182_272, None), (131_072, 51_200)),
    ((200_000, 51_200, 262_144, 131_072), (131_072, 51_200)),
    ((2_000_000, 51_200, 1_048_576, None), (997_376, 51_200)),
    ((0, 1, 2, None), (0, 1)),
]


@pytest.mark.parametrize(("given_", "expected"), FITS)
def test_a_prompt_gets_the_context_minus_the_answer(
    given_: tuple[int, int, int, int | None], expected: tuple[int, int]
) -> None:
    fit = budget.fit(*given_)
    assert (fit.keep, fit.max_tokens) == expected


def test_an_answer_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(EvaluationError, match="max_tokens 51200 leaves no room for a prompt in a context of 32768"):
        budget.fit(10, 51_200, 32_768)
    with pytest.raises(EvaluationError, match="must be positive"):
        budget.fit(10, 0, 32_768)


@given(st.lists(st.integers(), max_size=30), st.integers(0, 40))
def test_cutting_keeps_both_ends(ids: list[int], keep: int) -> None:
    cut = budget.cut_middle(ids, keep)
    assert len(cut) == min(len(ids), keep)
    head = cut[: (len(cut) + 1) // 2]
    assert ids[: len(head)] == head
    tail = cut[len(head) :]
    assert not tail or ids[-len(tail) :] == tail


def _apply(rule: str, messages: list[Message], keep: int) -> budget.Fitted:
    """One token a word; each message costs three more."""
    return budget.apply(
        rule,  # type: ignore[arg-type]
        messages,
        keep,
        count=lambda chat: sum(3 + len(one["content"].split()) for one in chat),
        encode=lambda text: [int(word) for word in text.split()],
        decode=lambda ids: " ".join(map(str, ids)),
        where="a.jsonl row 1",
    )


CHAT = [{"role": "system", "content": "1 2"}, {"role": "user", "content": " ".join(map(str, range(100)))}]


def test_the_rules_for_a_long_prompt() -> None:
    fits = _apply("refuse", CHAT, 108)
    assert (fits.messages, fits.prompt_tokens, fits.cut) == (CHAT, 108, False)
    skipped = _apply("skip", CHAT, 107)
    assert (skipped.messages, skipped.prompt_tokens, skipped.cut) == (None, 108, False)
    cut = _apply("middle", CHAT, 20)
    assert cut.messages is not None
    assert cut.messages[0] == CHAT[0]
    assert cut.messages[1]["content"] == "0 1 2 3 4 5 94 95 96 97 98 99"
    assert (cut.kept_tokens, cut.cut) == (20, True)
    with pytest.raises(EvaluationError, match=r"a\.jsonl row 1: the prompt has 108 tokens and 20 fit"):
        _apply("refuse", CHAT, 20)
    with pytest.raises(EvaluationError, match="cannot be cut to 8 tokens"):
        _apply("middle", CHAT, 8)


def test_a_seam_that_costs_tokens_is_cut_further() -> None:
    fitted = budget.apply(
        "middle",
        [{"role": "user", "content": "x" * 100}],
        50,
        count=lambda chat: len(chat[0]["content"]) + (0 if len(chat[0]["content"]) == 100 else 2),
        encode=lambda text: list(text.encode()),
        decode=lambda ids: bytes(ids).decode(),
        where="a",
    )
    assert fitted.kept_tokens == 50


def _samples() -> list[Sample]:
    return [
        Sample("p", 0, "scored", 1.0, {"set": "a"}, frozenset(["truncated"]), 1.0, {"f1": 0.5}),
        Sample("q", 0, "scored", 0.0, {"set": "b"}, frozenset(["unparsed"]), 0.0, {"f1": 0.5}),
        Sample("r", 0, "failed", None, {"set": "b"}),
        Sample("s", 0, "skipped", None, {"set": "b"}),
        Sample("t", 0, "unjudged", None, {"set": "b"}, frozenset(["unjudged"])),
    ]


def test_nothing_without_a_score_leaves_the_denominator() -> None:
    table = aggregate.by_label("x", _samples(), "strict", labels=("set",), judged=True)
    total, a, b = table.rows
    assert (total.value, total.mean, total.mean_scored) == (0.2, 0.2, 0.5)
    assert (total.samples, total.scored, total.failed, total.skipped, total.unjudged) == (5, 2, 1, 1, 1)
    assert (total.truncated, total.unparsed) == (1, 1)
    assert (a.label, a.group, a.value, a.stderr) == ("set", "a", 1.0, None)
    assert (b.group, b.value, b.mean_scored) == ("b", 0.0, 0.0)
    assert table.figures == {"rule": 0.2, "f1": 0.2}


def test_compat_drops_failures_where_the_original_does() -> None:
    drops = BENCHMARKS["longmemeval"]
    labels = {"ability": "abstention", "type": "multi-session"}
    samples = [Sample("p", 0, "scored", 1.0, labels), Sample("q", 0, "failed", None, labels)]
    assert drops.aggregate(samples, "compat").total.value == 1.0
    assert drops.aggregate(samples, "strict").total.value == 0.5
    assert drops.aggregate(samples, "strict").figures["task_averaged"] == 0.5
    assert BENCHMARKS["mrcr-128k"].aggregate(samples, "compat").total.value == 0.5


def test_the_mean_of_the_sets_is_the_total() -> None:
    samples = [
        Sample("p", 0, "scored", 1.0, {"set": "a"}),
        *(Sample(f"q{i}", 0, "scored", 0.0, {"set": "b"}) for i in range(9)),
    ]
    assert BENCHMARKS["longbench-qa"].aggregate(samples, "strict").total.value == 0.5


@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=2, max_size=8))
def test_equal_clusters_give_the_error_of_their_means(clusters: list[list[float]]) -> None:
    means = [sum(cluster) / 3 for cluster in clusters]
    expected = statistics.stdev(means) / math.sqrt(len(means))
    assert aggregate.clustered_stderr(clusters) == pytest.approx(expected, abs=1e-9)


def test_repeats_count_once_for_the_error() -> None:
    repeats = [Sample(name, i, "scored", score, {}) for name, score in (("p", 1.0), ("q", 0.0)) for i in range(32)]
    table = BENCHMARKS["aime24"].aggregate(repeats, "strict")
    assert table.total.value == 0.5
    assert table.total.stderr == pytest.approx(0.5)
    assert table.figures["pass@32"] == 0.5
    assert "pass@32" not in BENCHMARKS["aime24"].aggregate(repeats[:-1], "strict").figures


@given(n=st.integers(1, 40), data=st.data())
def test_pass_at_k_is_a_chance(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    assert 0.0 <= aggregate.pass_at_k(n, c, k) <= 1.0
    assert aggregate.pass_at_k(n, 0, k) == 0.0
    assert aggregate.pass_at_k(n, n, k) == 1.0


def test_impossible_tries_are_refused() -> None:
    with pytest.raises(EvaluationError, match="n=4, c=5"):
        aggregate.pass_at_k(4, 5, 2)
    with pytest.raises(EvaluationError, match="no scores"):
        aggregate.by_type({"x": []})


def test_the_page_follows_the_readers_light_or_dark() -> None:
    style = page.render({"suite": "s", "target": "t", "mode": "strict", "judge": None, "started": "2026-01-02T03:04:05",
                         "version": "1", "points": []}, [])  # fmt: skip
    assert "2026-01-02 03:04 UTC" in style
    assert "#fff;" not in page._MORE_STYLE, "colours are the page's"


def test_tables_align_text_and_numbers_each_its_way() -> None:
    html = page.table(["benchmark", "score"], [["<b>", "1.0"], ["x" * 61, "2.0"]])
    assert '<td class="text">&lt;b&gt;</td><td class="">1.0</td>' in html
    assert f'<td class="text long">{"x" * 61}</td>' in html
    one, two = ([{"name": str(i)} for i in range(number)] for number in (1, 2))
    rows = [("AIME", "step-1", ["50.0"])]
    assert "<th" in page._per_point(one, ["score"], rows)
    assert "step-1" not in page._per_point(one, ["score"], rows)
    assert "step-1" in page._per_point(two, ["score"], rows)


def test_a_difference_is_never_beyond_all_there_is() -> None:
    found = difference("b", {"1": 0.0, "2": 0.0}, {"1": 1.0, "2": 0.0})
    assert (found.low, found.high) == (-1.0, 1.0)
    assert list(lines([difference("b", {"1": 0.0}, {"2": 1.0})])) == ["b: no problem in both"]
