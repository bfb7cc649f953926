"""`golongrl eval`. Imports stay inside the functions: `--help` is fast."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from golongrl.errors import InputError
from golongrl.telemetry.scrape_options import MetricsHost, MetricsPort

app = typer.Typer(
    help="The paper's benchmarks: fetch their data, run them on a model, report and compare.",
    epilog="Example: `golongrl eval run long-context --target runs/mine --data eval-data`",
    no_args_is_help=True,
)

Out = Annotated[Path | None, typer.Option("--out", help="Folder of the results; default: evals/SUITE-TARGET.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override of the suite, as `section.key=value`; repeatable.")
]
SuiteName = Annotated[str, typer.Argument(help="Packaged suite, benchmark, or YAML file; see `golongrl eval list`.")]


@contextmanager
def _stopped_by_signals(advice: str) -> Iterator[None]:
    """A signal ends the work inside in order, with one line and this advice."""
    import asyncio
    import signal

    from golongrl.local.supervisor import SIGNALS, RunInterruptedError

    came: list[int] = []

    def stop(number: int, _frame: object) -> None:
        came.append(number)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            # Not an error, which a library might take for one of its own and try again.
            raise KeyboardInterrupt from None
        for task in asyncio.all_tasks(loop):
            loop.call_soon_threadsafe(task.cancel)

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise RunInterruptedError(came[0] if came else signal.SIGINT, advice) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@app.command("list", epilog="Example: `golongrl eval list`")
def list_benchmarks() -> None:
    """List the suites and benchmarks, with what each needs."""
    from rich.console import Console
    from rich.table import Table

    from golongrl.evaluation.registry import BENCHMARKS, SUITES

    table = Table(box=None)
    for title in ("benchmark", "problems", "repeats", "context", "YaRN", "judge"):
        table.add_column(title, no_wrap=True)
    table.add_column("suites", overflow="fold")
    for name, benchmark in BENCHMARKS.items():
        yarn = f"x{benchmark.yarn_factor:g}" if benchmark.yarn_factor > 1 else ""
        suites = ", ".join(suite for suite, members in SUITES.items() if name in members)
        judge = "yes" if benchmark.needs_judge else ""
        table.add_row(
            name, f"{benchmark.published:,}", str(benchmark.repeats), f"{benchmark.context:,}", yarn, judge, suites
        )
    Console().print(table)


@app.command(epilog="Example: `golongrl eval show long-context --resolved`")
def show(
    suite: SuiteName,
    overrides: Overrides = None,
    resolved: Annotated[bool, typer.Option("--resolved", help="With every default filled in.")] = False,
) -> None:
    """Print a suite as YAML: a start for one of your own."""
    from golongrl.evaluation.suite import dump, load, source

    print(dump(load(suite, overrides or ())) if resolved or overrides else source(suite), end="")


@app.command(epilog="Example: `golongrl eval fetch long-context --data eval-data`")
def fetch(
    suite: SuiteName,
    data: Annotated[Path, typer.Option(help="Folder that the data goes to.")],
    revision: Annotated[
        list[str] | None, typer.Option(help="Another revision, as `openai/mrcr=COMMIT`; repeatable.")
    ] = None,
) -> None:
    """Fetch the data of a suite, and check its revision, checksums and row counts.

    What is here already is checked and not fetched again. `fetched.json` keeps the revisions: copy it to get the same.
    """
    from golongrl.evaluation.fetch import fetch as fetch_sources
    from golongrl.evaluation.registry import BENCHMARKS
    from golongrl.evaluation.suite import load

    pairs = [item.partition("=") for item in revision or ()]
    if wrong := next(("".join(pair) for pair in pairs if not (pair[0] and pair[2])), None):
        raise InputError(f"--revision {wrong}: expected REPOSITORY=REVISION")
    members = [BENCHMARKS[name] for name in load(suite).benchmarks]
    sources = {source.name: source for benchmark in members for source in benchmark.sources}
    with _stopped_by_signals("run the same command again: what is here already is not fetched again"):
        fetch_sources(list(sources.values()), data, print, {repo: text for repo, _, text in pairs})


@app.command(epilog="Example: `golongrl eval run long-context --target runs/mine --data eval-data`")
def run(
    suite: SuiteName,
    target: Annotated[
        str | None,
        typer.Option(
            help="URL of an OpenAI-compatible endpoint, a model folder, a checkpoint, a run's folder, or release:NAME."
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the data.")] = None,
    judge: Annotated[
        str | None, typer.Option(help="URL or model folder of the judge; `none` gives what rules alone can score.")
    ] = None,
    judge_model: Annotated[str | None, typer.Option(help="Name of the judge's model at its endpoint.")] = None,
    model: Annotated[str | None, typer.Option(help="Name of the evaluated model at its endpoint.")] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Folder of the evaluated model's tokenizer, for an endpoint.")
    ] = None,
    mode: Annotated[str | None, typer.Option(help="Scoring: strict, compat or official.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Problems of each benchmark, evenly spread.")] = None,
    step: Annotated[list[int] | None, typer.Option(help="Of a run, only this step; repeatable.")] = None,
    last: Annotated[bool, typer.Option("--last", help="Of a run, only the newest step.")] = False,
    out: Out = None,
    overrides: Overrides = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Ask samples again that had no reply or no verdict.")
    ] = False,
    summary: Annotated[
        Path | None, typer.Option(help="Also write the scores here, as JSON of at most 4096 bytes.")
    ] = None,
    metrics_port: MetricsPort = None,
    metrics_host: MetricsHost = "127.0.0.1",
) -> None:
    """Ask a suite's questions, score the answers, write results.json and report.html.

    The same command again continues where it was stopped: only what was in flight is asked again.
    """
    from golongrl.evaluation.metrics import EvaluationMetrics
    from golongrl.evaluation.report import results
    from golongrl.evaluation.report import summary as summaries
    from golongrl.evaluation.run.execute import EvalRequest, execute
    from golongrl.evaluation.suite import load
    from golongrl.telemetry.logging import configure
    from golongrl.telemetry.scrape_port import scraped

    if summary is not None:
        summaries.refuse_place(summary)
    given = {
        "target.place": target,
        "data": data,
        "judge.place": None if judge == "none" else judge,
        "judge.model": judge_model,
        "target.model": model,
        "target.tokenizer": tokenizer,
        "mode": mode,
        "limits.samples": limit,
    }
    words = [f"{key}={_quoted(str(value))}" for key, value in given.items() if value is not None]
    if judge == "none":
        words.append("judge.place=null")
    # Progress and the last error say what matters; a line for each retry would hide them.
    configure("eval", level="ERROR")
    request = EvalRequest(load(suite, [*(overrides or ()), *words]), out, tuple(step or ()), retry_failed, last)
    metrics = EvaluationMetrics()
    advice = "run the same command again to continue"
    with scraped(metrics.registry, metrics_host, metrics_port), _stopped_by_signals(advice):
        folder = execute(request, lambda line: print(line, file=sys.stderr, flush=True), metrics)
    _print_scores(folder)
    if summary is not None:
        found = summaries.summarize(results.read(folder), folder / "report.html", step[-1] if step else None)
        summaries.write(found, summary)


def _quoted(text: str) -> str:
    """As YAML that reads back to this text; a number stays one."""
    return text if text.isdigit() else "'" + text.replace("'", "''") + "'"


@app.command(epilog="Example: `golongrl eval report evals/long-context-mine`")
def report(
    folder: Annotated[Path, typer.Argument(help="An evaluation's folder.")],
    inspect: Annotated[
        bool, typer.Option("--inspect", help="Also logs for the viewer of inspect-ai, in FOLDER/inspect.")
    ] = False,
) -> None:
    """Write results.json and report.html again, of an evaluation that runs or has ended."""
    from golongrl.evaluation.report import inspect_logs, results

    with _stopped_by_signals("the samples are unchanged; run the same command again"):
        results.write(folder)
        if inspect:
            print(f"logs: {inspect_logs.write(folder)} (inspect view --log-dir ...)")
    _print_scores(folder)


def _print_scores(folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from golongrl.evaluation.report import results
    from golongrl.evaluation.report.text import departures, failures, score_lines

    found = results.read(folder)
    table = Table(box=None)
    for title in ("model", "benchmark", "score", "samples"):
        table.add_column(title, no_wrap=True)
    table.add_column("without a score", overflow="fold")
    for line in score_lines(found):
        table.add_row(*line)
    Console().print(table)
    for words in (*failures(found), *departures(found)):
        print(words)
    print(f"report: {folder / 'report.html'}")


@app.command(epilog="Example: `golongrl eval compare evals/before evals/after`")
def compare(
    before: Annotated[Path, typer.Argument(help="An evaluation's folder.")],
    after: Annotated[Path, typer.Argument(help="Another one's.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Compare two evaluations problem by problem: paired differences with 95 % intervals."""
    import json
    from dataclasses import asdict

    from golongrl.evaluation.report.compare import compared, lines

    found = compared(before, after)
    if as_json:
        print(json.dumps([asdict(one) for one in found]))
        return
    if not found:
        raise InputError(f"compare: {before} and {after} have no benchmark in common")
    print("\n".join(lines(found)))


@app.command(epilog="Example: `golongrl eval yarn Qwen3-4B-Thinking-2507 --context 1048576`")
def yarn(
    model: Annotated[Path, typer.Argument(help="The model's folder, or its config.json.")],
    context: Annotated[int, typer.Option(help="Prompt plus answer in tokens: 524288 or 1048576 in the paper.", min=1)],
    engine: Annotated[
        Literal["sglang", "vllm", "huggingface"],
        typer.Option(help="Whose flags; huggingface is the part of config.json that changes."),
    ] = "sglang",
) -> None:
    """Print how an engine is started for a longer context than the model's own.

    rope_theta is read from the model: without it SGLang and transformers take 10,000, and the model writes garbage.
    """
    import json
    import shlex

    from golongrl.data.model_config import json_object
    from golongrl.evaluation.yarn import profile

    path = model if model.suffix == ".json" else model / "config.json"
    found = profile(json_object(path), context, str(path))
    if found is None:
        print(f"{context:,} tokens fit in the model's own context: start it without YaRN", file=sys.stderr)
    elif engine == "huggingface":
        print(json.dumps(found.override, indent=2))
    else:
        print(shlex.join(found.sglang_flags() if engine == "sglang" else found.vllm_flags()))
