"""Every benchmark from its data file to its table, without a model."""

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from golongrl.evaluation.benchmark import Benchmark
from golongrl.evaluation.kinds import Mode, Sample
from golongrl.evaluation.registry import BENCHMARKS, SUITES
from golongrl.evaluation.replies import Reply
from golongrl.evaluation.sources import DataFiles
from support.eval_data import right_reply, write_eval_data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_eval_data(tmp_path_factory.mktemp("eval-data"))


ALL = pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=BENCHMARKS.keys())


def _samples(benchmark: Benchmark, data: DataFiles, mode: Mode) -> Iterator[Sample]:
    for problem in benchmark.problems(data):
        for epoch in range(benchmark.repeats):
            scored = benchmark.score(problem, Reply(right_reply(problem)), mode)
            if scored.status == "needs_judge":
                prompts = benchmark.judge_prompts(problem, scored.answer, mode)
                verdicts = [benchmark.verdict("yes, they agree. [[YES]] [[CORRECT]]", mode) for _ in prompts]
                scored = benchmark.decide(scored, verdicts, mode)
            yield Sample(
                problem.key, epoch, scored.status, scored.score, problem.labels, scored.flags, scored.rule, scored.parts
            )


@ALL
@pytest.mark.parametrize("mode", get_args(Mode))
def test_right_replies_score_one(benchmark: Benchmark, mode: Mode, folder: Path) -> None:
    with DataFiles.find(folder, benchmark.sources) as data:
        table = benchmark.aggregate(list(_samples(benchmark, data, mode)), mode)
    assert table.total.value == 1.0
    assert table.total.failed == table.total.unjudged == table.total.skipped == 0


@ALL
def test_the_long_prompt_is_read_late_and_whole(benchmark: Benchmark, folder: Path) -> None:
    with DataFiles.find(folder, benchmark.sources) as data:
        problems = list(benchmark.problems(data))
        rows = sum(data.rows(source.name) for source in benchmark.sources if source.role == "problems")
        assert len(problems) == rows * benchmark.variants
        assert len({problem.key for problem in problems}) == len(problems)
        for problem in problems:
            assert all(label in problem.labels for label in benchmark.labels)
            if benchmark.conversational:
                continue
            messages = benchmark.messages(problem, data)
            assert messages[-1]["role"] == "user"
            assert all(message["content"] for message in messages)


@ALL
def test_a_failed_reply_counts_and_is_told(benchmark: Benchmark, folder: Path) -> None:
    with DataFiles.find(folder, benchmark.sources) as data:
        problem = next(iter(benchmark.problems(data)))
    scored = benchmark.score(problem, Reply.failure("HTTP 400"), "strict")
    assert (scored.status, scored.score, scored.reason) == ("failed", None, "HTTP 400")
    table = benchmark.aggregate(
        [Sample("a", 0, "scored", 1.0, problem.labels), Sample("b", 0, "failed", None, problem.labels)], "strict"
    )
    assert (table.total.value, table.total.mean_scored, table.total.failed) == (0.5, 1.0, 1)


def test_suites_name_benchmarks() -> None:
    assert all(name in BENCHMARKS for members in SUITES.values() for name in members)
    assert set(SUITES["paper"]) == set(BENCHMARKS)
