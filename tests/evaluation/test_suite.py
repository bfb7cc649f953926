"""A suite is strict YAML: what is wrong is named, what is packaged repeats the paper."""

import pytest

from golongrl.errors import InputError
from golongrl.evaluation.prompts import plan
from golongrl.evaluation.registry import BENCHMARKS, SUITES
from golongrl.evaluation.report import paper
from golongrl.evaluation.suite import Suite, dump, load, packaged, source

QWEN_NATIVE = 262_144


@pytest.mark.parametrize("name", [*SUITES, *BENCHMARKS])
def test_what_is_packaged_reads_back_and_departs_from_nothing(name, tmp_path) -> None:
    suite = load(name)
    path = tmp_path / "mine.yaml"
    path.write_text(dump(suite))
    assert load(str(path)) == suite
    path.write_text(source(name))
    assert load(str(path)) == suite
    for member in suite.benchmarks:
        benchmark = BENCHMARKS[member]
        asked = plan(benchmark, suite, served=int(QWEN_NATIVE * benchmark.yarn_factor))
        assert asked.departures in ((), ("without the vector backend, which needs target.embedder",))
        assert asked.room == min(asked.context - asked.max_tokens, asked.input_tokens or asked.context)


def test_the_papers_columns_are_benchmarks_of_ours() -> None:
    assert set(paper.COLUMNS.values()) == set(SUITES["table"]) <= set(BENCHMARKS)
    assert [round(paper.average(row) or 0, 1) for row in paper.PUBLISHED.values()] == [53.0, 62.2, 63.0, 69.8]
    assert paper.average((1.0, None)) is None
    assert set(packaged()) >= {"long-context", "general", "memory", "paper"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: a\n", "missing key benchmarks"),
        ("name: a\nbenchmarks: [frame]\n", "unknown benchmark frame; did you mean frames?"),
        ("name: a\nbenchmarks: [frames, frames]\n", "frames is named twice"),
        ("name: a\nbenchmarks: []\n", "benchmarks"),
        ("name: a b\nbenchmarks: [frames]\n", "name"),
        ("name: a\nbenchmarks: [frames]\nsamplin: {}\n", "unknown key samplin; did you mean sampling?"),
        (
            "name: a\nbenchmarks: [frames]\nsampling: {temprature: 1.0}\n",
            "unknown key sampling.temprature; did you mean sampling.temperature?",
        ),
        ("name: a\nbenchmarks: [frames]\nsampling: {top_p: 0}\n", "sampling.top_p"),
        ("name: a\nbenchmarks: [frames]\nsampling: {max_tokens: many}\n", "sampling.max_tokens"),
        ("name: a\nbenchmarks: [frames]\nmode: lenient\n", "mode"),
        ("name: a\nbenchmarks: [frames]\ncontext: {rule: left}\n", "context.rule"),
        ("name: a\nname: b\nbenchmarks: [frames]\n", "the key name stands twice"),
        ("- frames\n", "expected a mapping"),
        ("name: [\n", "not YAML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, said) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load(str(path))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"), [("long-contxt", "did you mean long-context?"), ("none/of.yaml", "no such file")]
)
def test_no_such_suite(name, said) -> None:
    with pytest.raises(InputError, match=said):
        load(name)


def test_overrides() -> None:
    suite = load("general", ["sampling.temperature=0", "benchmarks=[aime24]", "target.engine_arguments=[--a, b]"])
    assert isinstance(suite, Suite)
    assert (suite.sampling.temperature, suite.benchmarks) == (0.0, ("aime24",))
    assert suite.target.engine_arguments == ("--a", "b")
    with pytest.raises(InputError, match=r"sampling\.heat"):
        load("general", ["sampling.heat=1"])


@pytest.mark.parametrize(
    ("served", "answer", "context", "max_tokens"),
    [
        (None, None, 182_272, 51_200),
        (1 << 20, None, 182_272, 51_200),
        (91_136, None, 91_136, 25_600),
        (4096, None, 4096, 1150),
        (4096, 48, 4096, 48),
        (4096, 10_000, 4096, 1150),
    ],
)
def test_a_shorter_context_leaves_its_share_for_the_answer(served, answer, context, max_tokens) -> None:
    asked = plan(BENCHMARKS["longbench-v2"], load("longbench-v2"), served, answer)
    assert (asked.context, asked.max_tokens) == (context, max_tokens)
    assert bool(asked.departures) == (context != 182_272)


def test_an_answer_that_does_not_fit_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(InputError, match="max_tokens 5000 leaves no room"):
        plan(BENCHMARKS["frames"], load("frames", ["sampling.max_tokens=5000"]), 4096)


def test_at_512k_and_1m_prompt_and_answer_fit_together() -> None:
    for name, room in (("mrcr-512k", 473_088), ("mrcr-1m", 997_376)):
        asked = plan(BENCHMARKS[name], load(name), BENCHMARKS[name].context)
        assert asked.room == room
