"""What `golongrl reward tasks` and `golongrl reward score` show: reading a file, scoring it, tables for people."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from golongrl import tasks
from golongrl.data import keys_once
from golongrl.errors import InputError
from golongrl.reading import open_input
from golongrl.recipe.fields import ScoringMode
from golongrl.reward.config import RewardConfig
from golongrl.reward.gold_check import answers_of
from golongrl.reward.items import Answer
from golongrl.reward.models import Item, ScoreRequest, ScoreResult
from golongrl.reward.pool import WorkerPool
from golongrl.reward.reading import RefusedError, ScoreBatch, read_request, result_of

_BARS = "▁▂▃▄▅▆▇█"
_BINS = 10  # scores lie in [0, 1]
_PRELOAD = ("golongrl.reward.preload",)


class BadFileError(InputError):
    """The file or a line of it cannot be scored; the message names file, line and field."""


def read_items(path: Path) -> list[Item]:
    """Items of a jsonl: the API's items, or dataset rows with a `response`. Raises BadFileError."""
    items: list[Item] = []
    try:
        with TextIOWrapper(open_input(path), "utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    items.append(_item(line, f"{path}:{number}", number))
    except OSError as error:
        raise BadFileError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadFileError(f"{path}: not UTF-8 text: {error.reason}") from error
    if not items:
        raise BadFileError(f"{path}: no items in it")
    return items


def _item(line: str, where: str, number: int) -> Item:
    try:
        row = keys_once.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadFileError(f"{where}: not valid JSON: {error}") from error
    if not isinstance(row, dict):
        raise BadFileError(f"{where}: expected an object, got {type(row).__name__}")
    if "response" not in row:
        raise BadFileError(f"{where}: no field `response`: add the text to score to each row")
    try:
        item = Item.model_validate(_as_item(row, number))
        tasks.task_of(item.data_source, item.extra_info.get("reward_mode"))
    except ValidationError as error:
        first = error.errors()[0]
        raise BadFileError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except tasks.UnknownTaskError as error:
        raise BadFileError(f"{where}: {error}") from error
    return item


def _as_item(row: Mapping[str, Any], number: int) -> dict[str, Any]:
    """A dataset row keeps its label under reward_model.ground_truth; everything an item does not know is left out."""
    item = {key: row[key] for key in ("data_source", "response", "ground_truth") if key in row}
    if isinstance(row.get("reward_model"), dict) and "ground_truth" not in row:
        item["ground_truth"] = row["reward_model"].get("ground_truth")
    return item | {"id": str(row.get("id", number)), "extra_info": row.get("extra_info") or {}}


async def score_items(items: Sequence[Item], mode: ScoringMode, config: RewardConfig) -> list[ScoreResult]:
    """Score in worker processes here, without a service.

    Raises:
        BadFileError: an item is too large.
        NoWorkerError: no worker process can be started.
    """
    try:
        batch = read_request(ScoreRequest(mode=mode, items=list(items)), config)
    except RefusedError as error:
        raise BadFileError(error.problem.detail) from error
    pool = WorkerPool(
        tasks.score,
        workers=min(config.worker_count, len(items)),
        max_queued=len(items),
        preload=_PRELOAD,
        memory_bytes=config.worker_memory_bytes,
        recycle_after=config.recycle_after,
        start_timeout_s=config.start_timeout_s,
    )
    await pool.start()
    try:
        await pool.wait_warm()
        return _results(batch, await answers_of(pool, batch, pool.submit(batch.payloads, batch.deadline_s)))
    finally:
        await pool.stop()


def _results(batch: ScoreBatch, answers: Sequence[Answer]) -> list[ScoreResult]:
    rows = zip(batch.request.items, batch.tasks, answers, strict=True)
    return [result_of(item.id, task, answer) for item, task, answer in rows]


def task_table() -> Table:
    """The nine task types: what they ask for, how they are scored, how an answer must look."""
    table = Table("type", "ability [dim]and answer format[/dim]", "data_source [dim]or longbench_pro sub-task[/dim]")
    table.title, table.show_lines = "Task types", True
    for task in tasks.TASKS:
        asks = f"{escape(task.ability)}\n[dim]{escape(task.answer_format)}[/dim]"
        rows = [escape(task.data_source)] if task.data_source else []
        rows += [f"[dim]{escape(name)}[/dim]" for name in task.subtasks]
        table.add_row(f"{task.type}\n{task.metric}", asks, "\n".join(rows))
    return table


def histogram(scores: Iterable[float]) -> str:
    """Ten bins over [0, 1] as a line of bars; an empty bin is a dot."""
    counts = Counter(min(_BINS - 1, max(0, int(score * _BINS))) for score in scores)
    most = max(counts.values(), default=1)
    return "".join(_BARS[(counts[bin_] * len(_BARS) - 1) // most] if counts[bin_] else "·" for bin_ in range(_BINS))


def print_summary(console: Console, results: Sequence[ScoreResult]) -> None:
    """Per task type: count, mean, spread, distribution; then why items were unscored."""
    by_task: dict[tuple[str, str], list[ScoreResult]] = defaultdict(list)
    for result in results:
        by_task[result.task, result.metric].append(result)
    table = Table(title="Scores by task type")
    for name in ("type", "metric", "items", "scored", "mean", "std", "0 … 1"):
        table.add_column(name, justify="left" if name in ("type", "metric", "0 … 1") else "right")
    for (task, metric), group in sorted(by_task.items()):
        scores = [result.score for result in group if result.score is not None]
        mean, std = (f"{fmean(scores):.4f}", f"{pstdev(scores):.4f}") if scores else ("-", "-")
        table.add_row(task, metric, str(len(group)), str(len(scores)), mean, std, histogram(scores))
    console.print(table)
    unscored = Counter((result.task, result.reason or "?") for result in results if result.status == "unscored")
    if unscored:
        reasons = Table("type", "count", "reason", title="Unscored")
        for (task, reason), count in unscored.most_common():
            reasons.add_row(task, str(count), escape(reason))
        console.print(reasons)
