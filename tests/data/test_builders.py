"""Every built prompt has the gold answer it says: given back well-formed, it earns the most its metric gives."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golongrl.data.builders import build, compose, demonstration
from golongrl.data.builders.common import scatter
from golongrl.data.corpus import PYTHON_REFERENCE, Corpus, CorpusSection, estimate_tokens, load_corpus
from golongrl.data.errors import DataError
from golongrl.recipe import TaskType
from golongrl.tasks import score, task_of

TASKS: tuple[TaskType, ...] = ("T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8", "T9")
CORPUS = load_corpus(PYTHON_REFERENCE)


def _score(row, response, mode):
    outcome = score(row.data_source, response, row.ground_truth, {"reward_mode": row.extra_info.reward_mode}, mode=mode)
    assert outcome.status == "scored", outcome
    return outcome.score


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("style", "tokens"), [("terse", 90), ("terse", 2_000), ("full", 400), ("full", 4_000)])
@settings(max_examples=6)
@given(seed=st.integers(0, 2**32))
def test_the_gold_answer_earns_everything(task, style, tokens, seed):
    draft = compose(task, CORPUS, random.Random(seed), tokens, style)
    row = build(task, CORPUS, random.Random(seed), tokens, style)
    assert task_of(row.data_source, row.extra_info.reward_mode).type == task
    best = demonstration(draft)
    assert _score(row, best, "strict") == pytest.approx(1.0, abs=1e-6)
    # The original scores a summary with its thoughts: only there a perfect answer does not stand out.
    in_compat = f"</think>{draft.answer}" if task == "T9" else best
    expected = 0.5 if task == "T9" else 1.0 - 1e-6
    assert _score(row, in_compat, "compat") >= expected


@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=5)
@given(seed=st.integers(0, 2**32))
def test_another_prompts_answer_does_not(task, seed):
    rng = random.Random(seed)
    row = build(task, CORPUS, rng, 90, "terse")
    others = [demonstration(compose(task, CORPUS, rng, 90, "terse")) for _ in range(8)]
    assert min(_score(row, other, "strict") for other in others) < 1.0


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("style", "tokens"), [("terse", 90), ("terse", 3_000), ("full", 1_000), ("full", 8_000)])
def test_prompts_are_about_as_long_as_asked(task, style, tokens):
    lengths = [
        estimate_tokens(build(task, CORPUS, random.Random(seed), tokens, style).prompt[0].content) for seed in range(20)
    ]
    # Full prompts add instructions and end at whole paragraphs; T9's section comes as long as it is.
    slack = 250 if style == "full" else 40
    assert 0.4 * tokens - slack < sum(lengths) / len(lengths) < 1.35 * tokens + slack
    if task != "T9":
        assert max(lengths) < 1.6 * tokens + slack


def test_a_build_depends_on_its_seed_alone():
    for task in TASKS:
        first = build(task, CORPUS, random.Random("a"), 90, "terse")
        assert first == build(task, CORPUS, random.Random("a"), 90, "terse")
        assert first != build(task, CORPUS, random.Random("b"), 90, "terse")


def test_the_gold_is_in_the_text_where_it_should_be():
    for seed in range(30):
        rng = random.Random(seed)
        line = compose("T1", CORPUS, rng, 500, "full")
        assert line.golden_label in " ".join(line.context.split())
        summary = compose("T9", CORPUS, rng, 500, "full")
        assert summary.doc_ids[0] not in " ".join(summary.context.split())
        state = compose("T6", CORPUS, rng, 500, "full")
        for gold in state.doc_ids:
            name = gold.split(" = ")[0]
            last = [text for text in state.context.split("\n") if text.startswith(f"Update: {name} = ")][-1]
            assert last == f"Update: {gold}"
        rank = compose("T7", CORPUS, rng, 500, "full")
        points = [int(rank.context.split(f"Score: {name} has ")[1].split()[0]) for name in rank.doc_ids]
        assert points == sorted(points, reverse=True)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("style", ["terse", "full"])
def test_a_corpus_too_small_is_one_line(task, style):
    tiny = Corpus("tiny", (CorpusSection("s", ("One two.",)),))
    with pytest.raises(DataError) as caught:
        build(task, tiny, random.Random(0), 5_000, style)
    assert str(caught.value).startswith("corpus tiny: ")
    assert "\n" not in str(caught.value)


@given(st.integers(0, 99), st.lists(st.text("ab", max_size=3)), st.lists(st.text("xy", max_size=3)))
def test_scatter_keeps_both_orders(seed, lines, needles):
    merged = scatter(random.Random(seed), [f"l{x}" for x in lines], [f"n{x}" for x in needles])
    assert [x[1:] for x in merged if x[0] == "l"] == lines
    assert [x[1:] for x in merged if x[0] == "n"] == needles
