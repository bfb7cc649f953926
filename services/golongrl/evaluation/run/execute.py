"""`golongrl eval run` from beginning to end: the folder, the data, each point's engine, the questions, the report."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from golongrl import bounded_http
from golongrl.evaluation import registry
from golongrl.evaluation.benchmark import Benchmark
from golongrl.evaluation.errors import EvaluationError
from golongrl.evaluation.memory.embedding import encoder
from golongrl.evaluation.memory.loop import ToolStyle
from golongrl.evaluation.metrics import BenchmarkProgress, EvaluationMetrics, EvaluationProgress
from golongrl.evaluation.problems import EvalProblem
from golongrl.evaluation.prompts import AskingPlan, Counts, ModelTokens, Tokens, outside, plan
from golongrl.evaluation.report import results
from golongrl.evaluation.run import endpoint, engines
from golongrl.evaluation.run.ask import Course, Questioner, record_of
from golongrl.evaluation.run.judging import Judge
from golongrl.evaluation.run.points import Point, Subject, chosen, subject
from golongrl.evaluation.run.pool import GivingWay
from golongrl.evaluation.scoring import Scorer
from golongrl.evaluation.sources import DataFiles
from golongrl.evaluation.store import claim
from golongrl.evaluation.store.journal import SampleJournal
from golongrl.evaluation.suite import Suite
from golongrl.llm import ChatClient, Endpoint
from golongrl.local.supervisor import SIGNALS, RunInterruptedError
from golongrl.reading import file_sha256

# How often progress is printed.
_EVERY_S: Final = 15.0
# The longest pause between two lines where nothing changes.
_SELDOM_S: Final = 300.0
COUNTS: Final = "tokens.jsonl"


@dataclass(frozen=True)
class EvalRequest:
    """What the command line asked for beyond the suite."""

    suite: Suite
    out: Path | None
    steps: tuple[int, ...] = ()
    retry_failed: bool = False
    last: bool = False


def execute(request: EvalRequest, say: Callable[[str], None], metrics: EvaluationMetrics | None = None) -> Path:
    """Run the suite and write its results; returns the output folder.

    Raises:
        GolongrlError: the input is wrong, the server refuses everything or is gone, or a signal came. What was answered
            is kept, and the same command continues from there.
    """
    suite = request.suite
    if suite.target.place is None:
        raise EvaluationError("no target: give --target URL, a model folder, a checkpoint or runs/NAME")
    if suite.data is None:
        raise EvaluationError("no data: give --data FOLDER, as `golongrl eval fetch` fills it")
    what = subject(suite.target.place)
    points = chosen(what.points, request.steps)[-1 if request.last else 0 :]
    out = request.out or Path("evals") / f"{suite.name}-{what.label}"
    members = [registry.BENCHMARKS[name] for name in suite.benchmarks]
    sources = {source.name: source for benchmark in members for source in benchmark.sources}
    with claim.claimed(out) as made, DataFiles.find(Path(suite.data), list(sources.values())) as data:
        target = {"name": what.label, "model": suite.target.model}
        claim.keep(out, claim.identity(suite, target, data), claim.judge_identity(suite), suite)
        made.keep()
        without = ("vector",) if suite.target.embedder is None else ()
        problems = {one.name: one.spread(data, suite.limits.samples, without=without) for one in members}
        say(f"{suite.name}: {len(points)} model(s), {sum(map(len, problems.values())):,} problems; results in {out}")
        evaluation = _Evaluation(
            suite=suite,
            what=what,
            out=out,
            data=data,
            problems=problems,
            retry_failed=request.retry_failed,
            say=say,
            metrics=metrics or EvaluationMetrics(),
        )
        came: list[int] = []
        try:
            asyncio.run(_until_signal(evaluation.run(points), came))
        except asyncio.CancelledError:
            raise RunInterruptedError(came[0], "run the same command again to continue") from None
        finally:
            results.write(out)
    return out


async def _until_signal(work: Coroutine[Any, Any, None], came: list[int]) -> None:
    """Do the work; a signal cancels it, so that engines are stopped and results written."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None

    def note(number: int) -> None:
        came.append(number)
        task.cancel()

    for number in SIGNALS:
        loop.add_signal_handler(number, note, number)
    try:
        await work
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


class _Evaluation:
    """The points of one suite, one after the other."""

    def __init__(
        self,
        suite: Suite,
        what: Subject,
        out: Path,
        data: DataFiles,
        problems: dict[str, list[EvalProblem]],
        retry_failed: bool,
        say: Callable[[str], None],
        metrics: EvaluationMetrics,
    ) -> None:
        self._suite = suite
        self._what = what
        self._out = out
        self._data = data
        self._problems = problems
        self._retry_failed = retry_failed
        self._say = say
        self._metrics = metrics

    async def run(self, points: Sequence[Point]) -> None:
        async with AsyncExitStack() as stack:
            scorer = await stack.enter_async_context(Scorer())
            judge = await stack.enter_async_context(self._judge()) if self._suite.judge.place else None
            self._metrics.models = len(points)
            for point in points:
                if point.folder is None:
                    await self._ask_endpoint(point, scorer, judge)
                else:
                    await self._ask_weights(point, scorer, judge)
                self._metrics.done += 1

    @asynccontextmanager
    async def _judge(self) -> AsyncIterator[Judge]:
        settings = self._suite.judge
        assert settings.place is not None
        async with AsyncExitStack() as stack:
            url = settings.place
            if not url.startswith(("http://", "https://")):
                weights = engines.Weights.read(Path(url))
                launch = weights.launch(weights.native, scaled=False)
                self._say(f"starting the judge, {url}")
                home = self._out / "judge"
                url = await stack.enter_async_context(engines.started(launch, self._suite.target, home, "judge"))
            served = await endpoint.served(
                endpoint.base(url), settings.model, settings.api_key_variable, "--judge-model", self._say
            )
            client = await stack.enter_async_context(
                ChatClient(
                    Endpoint(
                        served.url,
                        served.model,
                        settings.concurrency,
                        settings.deadline_s,
                        self._suite.limits.attempts,
                        self._suite.limits.busy_s,
                        settings.api_key_variable,
                    )
                )
            )
            if served.url.startswith(settings.place):
                claim.keep_judge(self._out, served.model)
            yield Judge(client, settings)

    async def _ask_endpoint(self, point: Point, scorer: Scorer, judge: Judge | None) -> None:
        settings = self._suite.target
        served = [
            await endpoint.served(url, settings.model, settings.api_key_variable, "--model", self._say)
            for url in point.urls
        ]
        context = min((one.context for one in served if one.context is not None), default=None)
        folder = Path(settings.tokenizer) if settings.tokenizer else served[0].folder
        plans = [self._plan(benchmark, context) for benchmark in self._benchmarks()]
        if folder is not None and (folder / "config.json").is_file():
            for one in served:
                async with bounded_http.client(one.url, timeout=30.0) as http:
                    await engines.check_rope(one.url, http, _launch_of_server(folder, context))
        await self._ask(point, served, folder, plans, scorer, judge)

    async def _ask_weights(self, point: Point, scorer: Scorer, judge: Judge | None) -> None:
        settings = self._suite.target
        home = self._out / "engines" / point.name
        home.mkdir(parents=True, exist_ok=True)
        assert point.folder is not None
        claim.keep_weights(self._out, point.name, point.folder)
        weights = engines.Weights.read(await engines.merged(point, self._out / "merged", home))
        folder = Path(settings.tokenizer) if settings.tokenizer else weights.folder
        wanted = {
            benchmark.name: self._context(benchmark, weights.native)
            for benchmark in self._benchmarks()
            if not self._done(point, benchmark)
        }
        for context, scaled in engines.contexts(list(wanted.values()), weights.native).items():
            launch = weights.launch(context, scaled=scaled)
            named = [name for name, own in wanted.items() if (own == context if scaled else own <= weights.native)]
            plans = [self._plan(registry.BENCHMARKS[name], launch.context) for name in named]
            if not self._any_inside(point, plans, folder):
                continue
            rope = f" with YaRN x{launch.profile.factor:g}" if launch.profile else ""
            kind = engines.kind_of(settings)
            self._say(f"{point.name}: starting the {kind} engine, context {launch.context:,}{rope}")
            async with engines.started(launch, settings, home, "engine") as url:
                served = await endpoint.served(url, None, settings.api_key_variable, "--model", self._say)
                await self._ask(point, [served], folder, plans, scorer, judge)

    def _plan(self, benchmark: Benchmark, served: int | None) -> AskingPlan:
        return plan(benchmark, self._suite, served, self._what.answer_tokens)

    def _context(self, benchmark: Benchmark, native: int) -> int:
        """What an engine is started with for a benchmark: at most the native context times the benchmark's factor."""
        asked = self._suite.context.length or benchmark.context
        return min(asked, int(native * benchmark.yarn_factor) if self._suite.context.yarn else native)

    def _any_inside(self, point: Point, plans: Sequence[AskingPlan], folder: Path) -> bool:
        """Whether an engine is needed: not where every problem is known to belong to another length bin."""
        counts = Counts(self._out / COUNTS, _tokenizer_name(folder))
        for one in plans:
            problems = self._problems[one.benchmark.name]
            elsewhere = {problem.key for problem in problems if outside(one, counts.get(problem))}
            if len(elsewhere) < len(problems):
                return True
            results.keep_course(self._out, point.name, record_of(one, problems, elsewhere, point.step, ""))
        return False

    def _style(self, point: Point) -> ToolStyle:
        settings = self._suite.target
        if settings.tools != "auto":
            return settings.tools
        return "text" if point.folder is not None and engines.kind_of(settings) == "embedded" else "native"

    def _benchmarks(self) -> list[Benchmark]:
        return [registry.BENCHMARKS[name] for name in self._suite.benchmarks]

    def _done(self, point: Point, benchmark: Benchmark) -> bool:
        """Whether an engine need not be started for it."""
        if self._retry_failed:
            return False
        problems = self._problems[benchmark.name]
        return results.complete(self._out, point.name, benchmark.name, problems, judged=bool(self._suite.judge.place))

    async def _ask(
        self,
        point: Point,
        served: Sequence[endpoint.Served],
        folder: Path | None,
        plans: Sequence[AskingPlan],
        scorer: Scorer,
        judge: Judge | None,
    ) -> None:
        limits, settings = self._suite.limits, self._suite.target
        tokens: Tokens | None = ModelTokens(folder, self._suite.sampling.enable_thinking) if folder else None
        counts = Counts(self._out / COUNTS, _tokenizer_name(folder) if folder else "")
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(client) for client in self._clients(point, served)]
            extra: dict[str, Any] = {}
            if point.shared:
                way = await stack.enter_async_context(GivingWay(clients[0], settings.api_key_variable, self._say))
                extra = await way.fields()
            courses = []
            for one in plans:
                name, problems = one.benchmark.name, self._problems[one.benchmark.name]
                asked = record_of(one, problems, (), point.step, served[0].model)
                before = results.read_course(self._out, point.name, name)
                # The weights of a running release change while it is asked; those of a folder are compared themselves.
                if point.folder is None and not point.shared:
                    claim.refuse_another_course(self._out, before, asked)
                journal = stack.enter_context(self._journal(point, one))
                if before is None:
                    results.keep_course(self._out, point.name, asked)
                courses.append(Course(one, journal, self._data, problems))
            questioner = Questioner(
                clients,
                tokens,
                counts,
                scorer,
                judge,
                prompt_bytes=limits.prompt_bytes,
                retry_failed=self._retry_failed,
                embed=encoder(Path(settings.embedder)) if settings.embedder else None,
                style=self._style(point),
                replied=self._metrics.replied,
                extra=extra,
            )
            self._metrics.watch(lambda: _state(point, courses, questioner))
            progress = asyncio.create_task(self._progress(point, courses, questioner))
            try:
                await questioner.ask(courses)
            finally:
                progress.cancel()
                for course in courses:
                    asked = record_of(course.plan, course.problems, course.outside, point.step, served[0].model)
                    results.keep_course(self._out, point.name, asked)
                self._say(_line(point, courses, questioner))

    def _clients(self, point: Point, served: Sequence[endpoint.Served]) -> list[ChatClient]:
        """One of each engine; they share the suite's concurrency."""
        limits = self._suite.limits
        share = limits.pool_concurrency if point.shared else max(1, limits.concurrency // len(served))
        bounds = (share, limits.deadline_s, limits.attempts, limits.busy_s, self._suite.target.api_key_variable)
        return [ChatClient(Endpoint(one.url, one.model, *bounds)) for one in served]

    def _journal(self, point: Point, plan: AskingPlan) -> SampleJournal:
        return SampleJournal(results.journal_path(self._out, point.name, plan.benchmark.name))

    async def _progress(self, point: Point, courses: Sequence[Course], questioner: Questioner) -> None:
        last, waited, told = "", 0.0, 0.0
        while True:
            await asyncio.sleep(_EVERY_S)
            line = _line(point, courses, questioner)
            trouble = f"; {questioner.trouble}" if questioner.trouble else ""
            if line != last:
                self._say(line + trouble)
                last, waited, told = line, 0.0, 0.0
                continue
            waited += _EVERY_S
            # A long thought takes minutes: ever more seldom, but never silent.
            if waited >= min(2 * told, told + _SELDOM_S):
                self._say(f"{line}; no change for {waited:.0f} s{trouble}")
                told = waited


def _line(point: Point, courses: Sequence[Course], questioner: Questioner) -> str:
    parts = []
    for course in courses:
        entries = course.entries()
        counted = {
            status: sum(entry.sample.status == status for entry in entries)
            for status in ("failed", "skipped", "unjudged", "needs_judge")
        }
        counted["to judge"] = counted.pop("needs_judge")
        trouble = "".join(f", {number} {status}" for status, number in counted.items() if number)
        parts.append(f"{course.plan.benchmark.name} {len(entries):,}/{course.expected:,}{trouble}")
    return f"{point.name}: {'; '.join(parts)}; {questioner.in_flight} in flight"


def _state(point: Point, courses: Sequence[Course], questioner: Questioner) -> EvaluationProgress:
    """What a scrape reads."""
    return EvaluationProgress(
        point.step, questioner.in_flight, questioner.most_in_flight, [_benchmark_state(course) for course in courses]
    )


def _benchmark_state(course: Course) -> BenchmarkProgress:
    samples = [entry.sample for entry in course.entries()]
    scores = [sample.score for sample in samples if sample.score is not None]
    return BenchmarkProgress(
        course.plan.benchmark.name,
        course.expected,
        Counter(sample.status for sample in samples),
        sum(scores) / len(scores) if scores else None,
    )


def _tokenizer_name(folder: Path) -> str:
    """Counts of one tokenizer hold for all models that have it."""
    return file_sha256(folder / "tokenizer.json")[:16]


def _launch_of_server(folder: Path, context: int | None) -> engines.Launch:
    """What a server that somebody else started should turn by, for the context that it serves."""
    weights = engines.Weights.read(folder)
    return weights.launch(context or weights.native, scaled=context is not None and context > weights.native)
