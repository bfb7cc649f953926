"""`golongrl data`: build prompts from text, construct data from documents, check a dataset file, say what is in it."""

import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from golongrl import files
from golongrl.data.construct.command import construct, diff
from golongrl.data.construct.command import datajob as datajob
from golongrl.data.construct.passrate.command import rollouts, worker
from golongrl.errors import printable, writing_to
from golongrl.recipe.fields import ScoringMode

if TYPE_CHECKING:
    from golongrl.data.check import Findings
    from golongrl.data.rows import Row

app = typer.Typer(
    help="Datasets: build, check, look.", epilog="Example: `golongrl data check prompts.jsonl`", no_args_is_help=True
)

app.command(epilog="Example: `golongrl data construct laptop --out data/laptop`")(construct)
_POOL = "--recipe pool.yaml --run pass-rate --redis-url redis://localhost:6379/0 --data pool/data"
app.command(epilog=f"Example: `golongrl data rollouts {_POOL} --model /models/qwen3-4b --out pool/rewards`")(rollouts)
_BOARD = "--board data/paper/passrate/rollouts/small.json --redis-url redis://localhost:6379/0"
_BESIDE = "--engine-url http://localhost:30000 --reward-url http://localhost:8080"
app.command(epilog=f"Example: `golongrl data worker {_BOARD} {_BESIDE}`")(worker)
app.command(epilog="Example: `golongrl data diff data/monday data/tuesday`")(diff)

_BARS = "▁▂▃▄▅▆▇█"


@app.command(epilog="Example: `golongrl data build quickstart --out prompts.jsonl`")
def build(
    recipe: Annotated[str, typer.Argument(help="Packaged recipe or YAML file; its `data` section says what is built.")],
    out: Annotated[
        Path,
        typer.Option(help="File to write, .parquet or .jsonl; held-out rows go to NAME-validation beside it."),
    ],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override, as `section.key=value`; repeatable.")
    ] = None,
) -> None:
    """Write the prompts of a recipe as a dataset file in the format of Kwai-Klear/GoLongRL."""
    from golongrl.data.errors import DataError
    from golongrl.data.pipeline import sources
    from golongrl.data.row_files import files_of, refuse_suffix, write_rows
    from golongrl.recipe import load

    chosen = load(recipe, overrides or ())
    refuse_suffix(out)
    places = {"train": out, "validation": out.with_name(f"{out.stem}-validation{out.suffix}")}
    for place in places.values():
        for source_path in filter(None, (chosen.data.train, chosen.data.validation)):
            files.refuse_input(place, files_of(source_path))
    with files.sole_writer(out, DataError, parents=True, beside=places.values()):
        built = {}
        # All files or none: bad rows of the last refuse the first too.
        for split, source in sources(chosen).items():
            built[split] = [row for _, row in source.rows], source.findings
            source.findings.refuse()
        beside = places["validation"]
        if "validation" in built and beside.exists() and not out.exists():
            raise DataError(
                f"--out {out}: {beside}, which would be written too, is no file of this command; move it away"
            )
        for split, (rows, findings) in built.items():
            path = places[split]
            with _writing(out):
                print(printable(f"{path}: {write_rows(rows, path)} rows"))
            if findings.bad:
                print(
                    printable("\n  ".join([f"{findings.source}: {findings.summary()}; left out:", *findings.lines()]))
                )


@app.command(epilog="Example: `golongrl data prepare quickstart --out runs/q1/data`")
def prepare(
    recipe: Annotated[str, typer.Argument(help="Packaged recipe or YAML file.")],
    out: Annotated[
        Path,
        typer.Option(help="Folder to write, for --data of learner and workers; kept if it holds the same already."),
    ],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override, as `section.key=value`; repeatable.")
    ] = None,
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="Leave bad rows out and list them, instead of refusing the data."),
    ] = False,
) -> None:
    """Tokenise a recipe's prompts into the folder that a run reads: the step before a learner starts."""
    from golongrl.data.model_check import model_of
    from golongrl.data.pipeline import prepare
    from golongrl.evaluation.held_out import HeldOutSuite
    from golongrl.recipe import load
    from golongrl.recipe.fit import steps_warning

    checked = load(recipe, [*(overrides or ()), *(["data.bad_rows=skip"] if skip_bad else [])])
    model = model_of(checked)
    with _writing(out):
        report = prepare(checked, out, model, more=HeldOutSuite.of(checked))
    print(printable(str(report)))
    if warning := steps_warning(checked, report.train.rows):
        print(f"warning: {warning}", file=sys.stderr)


def _writing(out: Path) -> AbstractContextManager[None]:
    from golongrl.data.errors import DataError

    return writing_to(f"--out {out}", DataError)


_ROW_FORMAT = """A row, as a line of a .jsonl file or a row of a .parquet file with the same nesting:

    {"data_source": "EM",
     "prompt": [{"role": "user", "content": "..."}],
     "ability": "precise long-range information retrieval",
     "reward_model": {"ground_truth": {"golden_label": "Paris", "doc_ids": [], "summary": "English"}},
     "extra_info": {"reward_mode": "EM", "question": "..."}}

`data_source` selects the task (`golongrl reward tasks` lists them). The gold answer is `golden_label`; rows of
`longbench_pro` have theirs in `doc_ids`, one item each, and their sub-task's name in `reward_mode`. `summary` is the
language, English or Chinese. `ground_truth` may be the gold answer itself, a string or a number. Other fields are kept.

Example: `golongrl data check prompts.jsonl --mode strict`"""


@app.command(epilog=_ROW_FORMAT)
def check(
    file: Annotated[Path, typer.Argument(help="A .parquet or .jsonl file, or a folder of them.")],
    mode: Annotated[
        ScoringMode, typer.Option(help="The rules that golds must satisfy: reward.mode of the recipe.")
    ] = "compat",
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Succeed if a row is good; the bad ones are listed all the same.")
    ] = False,
    max_prompt_tokens: Annotated[
        int | None, typer.Option(min=1, help="A longer prompt is a fault, too: data.max_prompt_tokens of the recipe.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Count tokens with this model's tokenizer (lengths are kept in the cache); else estimated."),
    ] = None,
    gold_deadline: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds that scoring one row's own gold may take.")
    ] = 20.0,
    most: Annotated[int | None, typer.Option(min=0, help="List so many faults at most; without it all.")] = None,
) -> None:
    """Check every row: its format, its task, its text, and that its own gold answer is right by its metric."""
    from golongrl.data.check import Findings, LengthLimit, checked_rows
    from golongrl.data.construct.gold_judge import GoldJudge
    from golongrl.data.errors import DataError

    measure = _Lengths(model)
    limit = LengthLimit(max_prompt_tokens, measure.of) if max_prompt_tokens is not None else None
    findings = Findings(str(file), most_listed=sys.maxsize if most is None else most)
    with GoldJudge(gold_deadline) as judge, _telling(findings):
        good = sum(1 for _ in checked_rows(file, mode, findings, judge, limit))
    measure.save()
    _say_what_is_left_aside(file)
    for line in findings.lines():
        print(printable(line).replace("\n", " "))
    if findings.bad and not (skip_bad and good):
        raise DataError(f"data {file}: {findings.summary()}")
    if not findings.rows:
        raise DataError(f"data {file}: no rows")
    print(printable(f"{file}: {findings.summary()}" if findings.bad else f"{file}: {good} rows, all good"))


def _telling(findings: "Findings") -> AbstractContextManager[None]:
    """How many rows were read, now and then."""
    from golongrl.data.construct import progress

    return progress.told(
        lambda line: print(printable(line), file=sys.stderr, flush=True),
        lambda: f"{findings.source}: {findings.rows} rows read, {findings.bad} of them cannot be used",
        progress.EVERY_S,
    )


def _say_what_is_left_aside(file: Path) -> None:
    from golongrl.data.row_files import left_aside

    if others := left_aside(file):
        print(printable(f"{file}: has parquet files, so {len(others)} jsonl files are not read ({others[0]} first)"))


class _Lengths:
    """Prompt lengths by a model's tokenizer, or estimated without one."""

    def __init__(self, model: str | None) -> None:
        from golongrl.data.lengths import PromptLengths

        self._exact = PromptLengths(model) if model else None

    def of(self, row: "Row") -> int:
        from golongrl.data.corpus import estimate_tokens

        if self._exact is not None:
            return self._exact.of(row.prompt)
        return sum(estimate_tokens(message.content) for message in row.prompt)

    def save(self) -> None:
        if self._exact is not None:
            self._exact.save()


@app.command(epilog="Example: `golongrl data stats prompts.jsonl --model builtin:quickstart`")
def stats(
    file: Annotated[Path, typer.Argument(help="A .parquet or .jsonl file, or a folder of them.")],
    model: Annotated[
        str | None, typer.Option(help="Count prompt tokens with this model's tokenizer; else they are estimated.")
    ] = None,
) -> None:
    """Rows and prompt lengths per task type."""
    from golongrl.data.check import Findings, checked_rows
    from golongrl.data.errors import DataError
    from golongrl.tasks import task_of

    findings = Findings(str(file))
    lengths: dict[tuple[str, str], list[int]] = {}
    kinds: dict[str, Counter[str]] = {"language": Counter(), "length bin": Counter(), "band": Counter()}
    measure = _Lengths(model)
    with _telling(findings):
        for _, row in checked_rows(file, None, findings):
            task = task_of(row.data_source, row.extra_info.reward_mode)
            lengths.setdefault((task.type, task.metric), []).append(measure.of(row))
            known = row.extra_info.model_extra or {}
            kinds["language"][row.reward_model.ground_truth.summary] += 1
            kinds["length bin"][str(known.get("length_bin") or "")] += 1
            kinds["band"][str(known.get("band") or "")] += 1
    measure.save()
    _say_what_is_left_aside(file)
    bad = f"{findings.summary()}; `golongrl data check {file}` lists them" if findings.bad else ""
    if not lengths:
        raise DataError(f"data {file}: {bad or 'no rows'}")
    everything = [length for group in lengths.values() for length in group]
    unit = "tokens" if model else "tokens (estimated)"
    table = Table("task", "metric", "rows", "shortest", "median", "longest", f"{unit}, short to long", box=None)
    for (task_type, metric), group in sorted(lengths.items()):
        table.add_row(task_type, metric, *_summary(group, max(everything)))
    if len(lengths) > 1:
        table.add_row("all", "", *_summary(everything, max(everything)))
    Console().print(table)
    for name, counts in kinds.items():
        if set(counts) != {""}:
            told = ", ".join(f"{count} {kind or 'not said'}" for kind, count in counts.most_common())
            print(printable(f"{name}: {told}"))
    if bad:
        print(printable(f"{file}: {bad}"))


def _summary(lengths: Sequence[int], top: int) -> tuple[str, str, str, str, str]:
    ordered = sorted(lengths)
    return str(len(ordered)), str(ordered[0]), str(ordered[len(ordered) // 2]), str(ordered[-1]), bars(ordered, top)


def bars(values: Sequence[int], top: int, bins: int = 16) -> str:
    """A one-line histogram of `values` over 0 to `top`."""
    counts = Counter(min(bins - 1, value * bins // (top + 1)) for value in values)
    peak = max(counts.values(), default=1)
    return "".join(_BARS[-(-counts[i] * (len(_BARS) - 1) // peak)] if counts[i] else " " for i in range(bins))
