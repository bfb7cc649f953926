"""The problems of a suite among the rows that a run validates on, and the scores of their answers.

A recipe names the suite in `data.validation_suite`. Its problems are prepared once, each with all that scoring needs,
so that neither workers nor learner read the benchmarks' files. Engines answer them as they answer other held-out rows:
with `rollout.validation_temperature` and the recipe's longest answer. The learner scores.

Invariants:
- a benchmark's score is over all of its rows; a row without an answer counts as the benchmark counts a failed sample;
- nothing is judged in training: of benchmarks that need a judge, what rules alone give is told, under another name;
- a problem that is too long follows its benchmark's rule (cut, or left out and counted in the report of the data).
"""

import asyncio
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from golongrl.data.pipeline import SplitReport
from golongrl.data.prepared import BENCHMARK, PreparedRow
from golongrl.evaluation.benchmark import Benchmark
from golongrl.evaluation.errors import EvaluationError
from golongrl.evaluation.kinds import Sample
from golongrl.evaluation.problems import EvalProblem
from golongrl.evaluation.prompts import AskingPlan, Counts, ModelTokens, plan, prepare
from golongrl.evaluation.registry import BENCHMARKS
from golongrl.evaluation.replies import Reply
from golongrl.evaluation.scoring import Scorer
from golongrl.evaluation.sources import DataFiles
from golongrl.evaluation.suite import Suite, load
from golongrl.recipe import Recipe

PREFIX = "val-suite/"
Answer = dict[str, Any]


@dataclass(frozen=True)
class HeldOutSuite:
    """A recipe's suite and where its data is."""

    recipe: Recipe
    suite: Suite
    folder: Path

    @classmethod
    def of(cls, recipe: Recipe) -> "HeldOutSuite | None":
        """The recipe's suite, if it names one.

        Raises:
            SuiteError: it is not to be used.
            EvaluationError: a benchmark of it cannot be asked in training.
        """
        data = recipe.data
        if data.validation_suite is None or data.validation_suite_data is None:
            return None
        suite = load(data.validation_suite)
        if talks := [name for name in suite.benchmarks if BENCHMARKS[name].conversational]:
            raise EvaluationError(
                f"data.validation_suite {data.validation_suite}: {talks[0]} is asked in conversations, which training "
                "has no room for; name the other benchmarks in a suite of your own"
            )
        return cls(recipe, suite, Path(data.validation_suite_data))

    @property
    def fingerprint(self) -> str:
        """Changes with whatever the rows depend on beside the recipe's other data, model and seed."""
        recipe = self.recipe
        samples, most = recipe.data.validation_suite_samples, recipe.rollout.max_response_tokens
        asked = (self.suite.model_dump_json(), samples, recipe.model.context_length, most)
        digest = hashlib.sha256(repr(asked).encode())
        with self._files() as data:
            for path in (path for name in sorted(data.paths) for path in data.paths[name]):
                digest.update(os.fsencode(f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}"))
        return digest.hexdigest()

    def check(self) -> None:
        """Read every problem.

        Raises:
            EvaluationError: a file is missing, or a row of it is wrong.
        """
        with self._files() as data:
            for benchmark in self._benchmarks():
                self._chosen(benchmark, data)

    def rows(self, tokenizer: Path, report: SplitReport) -> Iterator[PreparedRow]:
        """The problems as rows; `report` counts them, and those that are left out because they are too long.

        Raises:
            EvaluationError: a row is wrong, or a benchmark has no row left.
        """
        tokens = ModelTokens(tokenizer, self.recipe.data.enable_thinking)
        counts = Counts(None, "")
        with self._files() as data:
            for benchmark in self._benchmarks():
                asked = self._plan(benchmark)
                for problem in self._chosen(benchmark, data):
                    fitted = prepare(asked, problem, data, tokens, counts)
                    if fitted.messages is None:
                        report.overlong += 1
                        continue
                    ids = tokens.ids(fitted.messages)
                    report.truncated += fitted.cut_tokens > 0
                    report.longest = max(report.longest, len(ids))
                    for epoch in range(asked.repeats):
                        report.tokens += len(ids)
                        report.tasks[benchmark.name] = report.tasks.get(benchmark.name, 0) + 1
                        yield replace(_row(benchmark, problem, epoch, self.suite), prompt_ids=ids)
                if benchmark.name not in report.tasks:
                    raise EvaluationError(
                        f"data.validation_suite {self.suite.name}: no problem of {benchmark.name} fits "
                        f"{asked.room:,} prompt tokens; leave it out, or raise data.max_prompt_tokens"
                    )

    def _benchmarks(self) -> list[Benchmark]:
        return [BENCHMARKS[name] for name in self.suite.benchmarks]

    def _files(self) -> DataFiles:
        sources = {source.name: source for benchmark in self._benchmarks() for source in benchmark.sources}
        return DataFiles.find(self.folder, list(sources.values()))

    def _chosen(self, benchmark: Benchmark, data: DataFiles) -> list[EvalProblem]:
        return benchmark.spread(data, self.recipe.data.validation_suite_samples or self.suite.limits.samples)

    def _plan(self, benchmark: Benchmark) -> AskingPlan:
        recipe = self.recipe
        found = plan(benchmark, self.suite, recipe.model.context_length, recipe.rollout.max_response_tokens)
        most = min(recipe.data.max_prompt_tokens, found.input_tokens or recipe.data.max_prompt_tokens)
        return replace(
            found,
            context=recipe.model.context_length,
            max_tokens=recipe.rollout.max_response_tokens,
            input_tokens=most,
            # Thirty-two answers to each problem would hold training up; the noise of one is in the standard error.
            repeats=self.suite.sampling.repeats or 1,
        )


def _row(benchmark: Benchmark, problem: EvalProblem, epoch: int, suite: Suite) -> PreparedRow:
    import numpy as np

    return PreparedRow(
        index=-1,
        prompt_ids=np.empty(0, np.int32),
        task=BENCHMARK,
        metric=benchmark.name,
        task_key=benchmark.name,
        data_source=benchmark.name,
        reward_mode=suite.mode,
        ground_truth={"problem": asdict(problem), "epoch": epoch},
        extra_info={},
        ability=benchmark.title,
    )


async def score(answers: Sequence[tuple[Answer, PreparedRow]], *, thinking: bool) -> None:
    """Add to answers what became of them.

    Raises:
        EvaluationError: the gold of a row cannot be used.
    """
    if not answers:
        return
    async with Scorer() as scorer:

        async def one(answer: Answer, row: PreparedRow) -> None:
            problem = EvalProblem(
                **{**row.ground_truth["problem"], "golds": tuple(row.ground_truth["problem"]["golds"])}
            )
            reply = (
                Reply(answer["output"], None, answer["finish_reason"], thinking=thinking)
                if answer["finish_reason"]
                else Reply.failure(answer["reason"])
            )
            mode = next(mode for mode in ("strict", "compat", "official") if mode == row.reward_mode)
            scored = await scorer.score(BENCHMARKS[row.data_source], problem, reply, mode)
            answer.update(
                score=scored.score,
                reason=scored.reason,
                status=scored.status,
                rule=scored.rule,
                flags=sorted(scored.flags),
                parts=dict(scored.parts),
                problem=problem.key,
                epoch=row.ground_truth["epoch"],
                labels=dict(problem.labels),
            )

        await asyncio.gather(*(one(answer, row) for answer, row in answers))


def metrics(answers: Sequence[Answer]) -> dict[str, float]:
    """The benchmarks of a round in numbers: `val-suite/NAME/score` and `stderr`.

    Of benchmarks that need a judge: `rules`, the share of answers that rules alone find right, and how many answers
    only a judge could decide (`to_judge`).
    """
    numbers: dict[str, float] = {}
    for name in dict.fromkeys(answer["data_source"] for answer in answers):
        benchmark = BENCHMARKS[name]
        mine = [answer for answer in answers if answer["data_source"] == name]
        samples = [_sample(answer) for answer in mine]
        if benchmark.needs_judge:
            numbers[f"{PREFIX}{name}/rules"] = fmean((sample.score or sample.rule or 0.0) for sample in samples)
            numbers[f"{PREFIX}{name}/to_judge"] = sum(sample.status == "needs_judge" for sample in samples)
            continue
        total = benchmark.aggregate(samples, mine[0]["reward_mode"]).total
        found = {"score": total.value, "stderr": total.stderr}
        numbers |= {f"{PREFIX}{name}/{key}": value for key, value in found.items() if value is not None}
    return numbers


def _sample(answer: Mapping[str, Any]) -> Sample:
    return Sample(
        problem=answer["problem"],
        epoch=answer["epoch"],
        status=answer["status"],
        score=answer["score"],
        labels=answer["labels"],
        flags=frozenset(answer["flags"]),
        rule=answer["rule"],
        parts=answer["parts"],
    )
