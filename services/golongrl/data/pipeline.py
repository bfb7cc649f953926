"""From a recipe to prepared folders: read or build rows, tokenise, deal with overlong prompts, hold validation out.

Everything that can be wrong with the data is found here, before any process of a run starts.
"""

import hashlib
import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Final, Literal, Protocol, TypeVar

from golongrl import files
from golongrl.data.builders import build
from golongrl.data.chat import Chat, think_problem
from golongrl.data.check import Finding, Findings, checked_rows
from golongrl.data.corpus import Corpus, load_corpus, text_files
from golongrl.data.errors import DataError, NoRowsError
from golongrl.data.prepared import CHECKSUM, PreparedRow, open_splits, write_prepared
from golongrl.data.prepared import FILE as ROWS
from golongrl.data.row_files import files_of
from golongrl.data.rows import Row
from golongrl.reading import small_text
from golongrl.recipe import Data, Recipe
from golongrl.recipe.fit import BUILTIN_CORPUS, rows_fault
from golongrl.tasks import task_of
from golongrl.telemetry import run_info

# Share of a corpus set aside for validation, always, so that a later run with validation trains on the same text.
HELD_OUT_SHARE = 0.1
# Rows tokenised together, on as many cores as there are.
_CHUNK = 32
# Names the layout of the prepared folder: raised when it changes, so that an older one is made again.
_FORMAT = 2
REPORT = "prepared.json"
# A report without a fingerprint: the folder is ours, and what is in it is not whole.
_UNFINISHED = "{}\n"
_STAGING = "preparing"
_LOCK = ".lock"
# Keys whose meaning `MoreHeldOut` has in its own fingerprint.
_OF_SUITES = {"validation_suite", "validation_suite_data", "validation_suite_samples"}

Split = Literal["train", "validation"]
_SPLITS: Final[tuple[Split, ...]] = ("train", "validation")
Progress = Callable[[Split, int], None]
_T = TypeVar("_T")


@dataclass(slots=True)
class SplitReport:
    """What became of the rows of one split."""

    rows: int = 0
    overlong: int = 0
    truncated: int = 0
    other_tasks: int = 0
    tasks: dict[str, int] = field(default_factory=dict)
    longest: int = 0
    tokens: int = 0
    bad: dict[str, int] = field(default_factory=dict)
    bad_rows: list[str] = field(default_factory=list)

    def lines(self, split: str) -> list[str]:
        """What became of the split's rows, in sentences."""
        tasks = ", ".join(f"{task} {count}" for task, count in self.tasks.items())
        said = [f"{split}: {self.rows} rows, {self.tokens} prompt tokens, the longest has {self.longest} ({tasks})"]
        left_out = [
            (self.overlong, "longer than data.max_prompt_tokens"),
            (self.other_tasks, "of tasks that data.tasks does not name"),
            (sum(self.bad.values()), "bad"),
        ]
        said += [f"{split}: {count} rows left out: {why}" for count, why in left_out if count]
        if self.truncated:
            said.append(f"{split}: {self.truncated} prompts cut to data.max_prompt_tokens")
        return said + [f"  {line}" for line in self.bad_rows]


@dataclass(slots=True)
class DataReport:
    """What `prepare` wrote, kept beside it as JSON; `fingerprint` covers all that the rows depend on."""

    fingerprint: str
    train: SplitReport
    validation: SplitReport | None = None

    def __str__(self) -> str:
        held_out = self.validation.lines("validation") if self.validation else []
        return "\n".join([*self.train.lines("train"), *held_out])


class MoreHeldOut(Protocol):
    """Held-out rows of another origin: the problems of a suite."""

    @property
    def fingerprint(self) -> str: ...

    def rows(self, tokenizer: Path, report: SplitReport) -> Iterator[PreparedRow]: ...


def prepare(
    recipe: Recipe,
    out: Path,
    tokenizer_dir: Path,
    progress: Progress | None = None,
    more: MoreHeldOut | None = None,
) -> DataReport:
    """Write `out/train` and, where the recipe has one, `out/validation`; a folder already made of the same is kept.

    Args:
        recipe: its `data` section and seed say what.
        tokenizer_dir: model folder with tokenizer and chat template (`golongrl.data.models.resolve`).
        more: rows that join the held-out ones.
        progress: called with the split and the rows done so far.

    Raises:
        DataError: corpus, file, row, tokenizer or a limit is at fault, or `out` holds files of somebody else; nothing
            half-written is left under `out`.
    """
    chat = Chat.open(tokenizer_dir)
    if problem := think_problem(chat, recipe.data.enable_thinking):
        raise DataError(f"model {tokenizer_dir}: {problem}")
    fingerprint = _fingerprint(recipe, tokenizer_dir) + (more.fingerprint if more else "")
    if (kept := _kept(out, fingerprint)) is not None:
        return kept
    _refuse_foreign(out)
    _refuse_of_run(out)
    try:
        with files.locked_folder(out, _LOCK) as made:
            # Again: another process may have had the folder until now.
            if (kept := _kept(out, fingerprint)) is not None:
                return kept
            place = _refuse_foreign(out)
            files.sweep_staged(out, 0)
            files.sweep(out, _STAGING)
            made.file(out / REPORT)
            if place.free:
                files.write_text(out / REPORT, _UNFINISHED)
            return _made(recipe, out, fingerprint, tokenizer_dir, chat, progress, more, made)
    except files.LockHeldError as error:
        raise DataError(f"--out {out}: another process prepares data in this folder ({error})") from error


def is_whole(out: Path) -> bool:
    """Whether `prepare` wrote all of this folder."""
    report = _report(out)
    return report is not None and bool(report.fingerprint)


def _refuse_of_run(out: Path) -> None:
    """A run reads its own rows to its end, whichever of its processes starts again."""
    owner = out.resolve().parent
    if is_whole(out) and (owner / run_info.FILE).exists():
        raise DataError(f"--out {out}: holds the data that run {owner.name} began with; choose another folder")


def _refuse_foreign(out: Path) -> files.Place:
    place = files.look(out, (REPORT,), harmless=(_LOCK,))
    # What is in the folders of the splits is deleted with them.
    for found in (place, *(files.look(out / split, (), harmless=(ROWS, CHECKSUM)) for split in _SPLITS)):
        if not (found.free or found.state is files.PlaceState.OWN):
            raise DataError(f"--out {out}: {found.why_not('of prepared data')}; move them, or choose another folder")
    return place


def _made(
    recipe: Recipe,
    out: Path,
    fingerprint: str,
    tokenizer_dir: Path,
    chat: Chat,
    progress: Progress | None,
    more: MoreHeldOut | None,
    made: files.Made,
) -> DataReport:
    splits: dict[Split, SplitReport] = {}
    staging = files.scratch_name(out / _STAGING)
    try:
        found = sources(recipe)
        if more is not None:
            found.setdefault("validation", Source(iter(()), Findings("")))
        for split, source in found.items():
            splits[split] = report = SplitReport()
            ready = _tokenised(source, recipe.data, chat, report, split, progress)
            if more is not None and split == "validation":
                ready = chain(ready, more.rows(tokenizer_dir, report))
            report.rows = write_prepared(ready, staging / split)
            source.findings.refuse()
            report.bad, report.bad_rows = dict(source.findings.kinds), source.findings.lines()
            if not report.rows:
                raise NoRowsError(_empty(split, recipe.data, report))
        if fault := rows_fault(recipe, splits["train"].rows):
            raise DataError(fault)
        result = DataReport(fingerprint, splits["train"], splits.get("validation"))
        # An earlier report must not describe rows that are replaced now.
        files.write_text(out / REPORT, _UNFINISHED)
        for split in _SPLITS:
            # One that is not made now is of other rows.
            shutil.rmtree(out / split, ignore_errors=True)
            if split in splits:
                # Left without its report, it would be a folder of somebody else to the next command.
                made.tree(out / split)
                (staging / split).rename(out / split)
        shutil.rmtree(staging, ignore_errors=True)
        files.write_text(out / REPORT, json.dumps(asdict(result), indent=2) + "\n")
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return result


@dataclass(slots=True)
class Source:
    """The good rows of a split, each with words that say where it comes from, and what is wrong with the others."""

    rows: Iterator[tuple[str, Row]]
    findings: Findings


def sources(recipe: Recipe) -> dict[Split, Source]:
    """The rows of each split.

    Raises:
        DataError: the corpus or a file is missing, empty or too small.
    """
    data = recipe.data
    found: dict[Split, Source] = {}
    if data.corpus is not None:
        corpus, held_out = load_corpus(data.corpus).split(HELD_OUT_SHARE)
        found["train"] = _built(recipe, corpus, "train", data.prompts)
        if data.validation_prompts and data.validation is None:
            found["validation"] = _built(recipe, held_out, "validation", data.validation_prompts)
    elif data.train is not None:
        found["train"] = _read(recipe, data.train)
    if data.validation is not None:
        found["validation"] = _read(recipe, data.validation)
    return found


def absent(recipe: Recipe) -> Iterator[str]:
    """One line for each part of the recipe's data that is not on this machine; no row is read.

    Raises:
        DataError: what is here can hold no rows.
    """
    data = recipe.data
    if data.corpus is not None and data.corpus != BUILTIN_CORPUS:
        if Path(data.corpus).exists():
            text_files(data.corpus)
        else:
            yield f"data.corpus {data.corpus} is not on this machine; its text was not checked"
    for key, path in (("train", data.train), ("validation", data.validation)):
        if path is None:
            continue
        if Path(path).exists():
            files_of(path)
        else:
            yield f"data.{key} {path} is not on this machine; its rows were not checked"


def _built(recipe: Recipe, corpus: Corpus, split: Split, prompts: int) -> Source:
    """Rows built in turn for each task; row i depends on the seed, the split and i alone."""
    data = recipe.data

    def rows() -> Iterator[tuple[str, Row]]:
        for index in range(prompts):
            task = data.tasks[index % len(data.tasks)]
            rng = random.Random(f"{recipe.seed}:{split}:{task}:{index}")
            yield f"built row {index + 1}", build(task, corpus, rng, data.context_tokens, data.instructions)

    return Source(rows(), Findings(data.corpus or ""))


def _read(recipe: Recipe, path: str) -> Source:
    files_of(path)  # refuses now what is not there
    findings = Findings(path, skip=recipe.data.bad_rows == "skip")
    return Source(checked_rows(path, recipe.reward.mode, findings), findings)


def _tokenised(
    source: Source, data: Data, chat: Chat, report: SplitReport, split: Split, progress: Progress | None
) -> Iterator[PreparedRow]:
    """The rows ready to be written. Once a row is bad and bad rows are refused, the others are checked only."""
    counts: Counter[str] = Counter()
    done = 0
    for chunk in _chunks(source.rows, _CHUNK):
        done += len(chunk)
        kept = [(where, ready, row) for where, row in chunk if (ready := _routed(row)).task in data.tasks]
        report.other_tasks += len(chunk) - len(kept)
        rendered = [(where, ready, text) for where, ready, text in _rendered(kept, data, chat, source.findings)]
        for (where, ready, _), ids in zip(rendered, chat.encode([text for *_, text in rendered]), strict=True):
            limit = data.max_prompt_tokens
            if len(ids) > limit and data.overlong == "error":
                message = f"{len(ids)} tokens, data.max_prompt_tokens is {limit}"
                source.findings.add(Finding(where, "too long", message))
                continue
            if len(ids) > limit and data.overlong == "filter":
                report.overlong += 1
                continue
            report.truncated += len(ids) > limit
            counts[ready.task] += 1
            report.longest = max(report.longest, min(len(ids), limit))
            report.tokens += min(len(ids), limit)
            yield replace(ready, prompt_ids=ids[-limit:])
        if progress is not None:
            progress(split, done)
    report.tasks = dict(sorted(counts.items()))


def _rendered(
    rows: Iterable[tuple[str, PreparedRow, Row]], data: Data, chat: Chat, findings: Findings
) -> Iterator[tuple[str, PreparedRow, str]]:
    for where, ready, row in rows:
        try:
            messages = [message.model_dump() for message in row.prompt]
            yield where, ready, chat.render(messages, data.enable_thinking)
        except DataError as error:
            findings.add(Finding(where, "refused by the chat template", str(error)))


def _routed(row: Row) -> PreparedRow:
    """The row with its task looked up, not tokenised yet."""
    import numpy as np

    mode = row.extra_info.reward_mode
    task = task_of(row.data_source, mode)
    return PreparedRow(
        index=-1,
        prompt_ids=np.empty(0, np.int32),
        task=task.type,
        metric=task.metric,
        task_key=task.key,
        data_source=row.data_source,
        reward_mode=mode,
        ground_truth=row.ground_truth,
        extra_info=row.extra_info.model_dump(mode="json"),
        ability=row.ability,
    )


def _chunks(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def _fingerprint(recipe: Recipe, tokenizer_dir: Path) -> str:
    data = recipe.data.model_dump_json(exclude=_OF_SUITES)
    digest = hashlib.sha256(f"{_FORMAT} {recipe.seed} {data}".encode())
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        file = tokenizer_dir / name
        digest.update(file.read_bytes() if file.is_file() else b"")
    for path in (recipe.data.train, recipe.data.validation):
        for file in files_of(path) if path else ():
            digest.update(os.fsencode(f"{file} {file.stat().st_size} {file.stat().st_mtime_ns}"))
    corpus = Path(recipe.data.corpus or "")
    if recipe.data.corpus and corpus.is_dir():
        for file in sorted(path for path in corpus.rglob("*") if path.is_file()):
            digest.update(os.fsencode(f"{file} {file.stat().st_size} {file.stat().st_mtime_ns}"))
    return digest.hexdigest()


def _kept(out: Path, fingerprint: str) -> DataReport | None:
    """The report of an earlier run if it made the very same data, and that is whole."""
    report = _report(out)
    if report is None or report.fingerprint != fingerprint:
        return None
    try:
        train, held_out = open_splits(out, every_byte=True)
    except DataError:
        return None
    rows = len(train), len(held_out) if held_out else None
    return report if rows == (report.train.rows, report.validation.rows if report.validation else None) else None


def _report(out: Path) -> DataReport | None:
    try:
        record = json.loads(small_text(out / REPORT))
        validation = record["validation"]
        return DataReport(
            str(record["fingerprint"]),
            SplitReport(**record["train"]),
            SplitReport(**validation) if validation else None,
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _empty(split: Split, data: Data, report: SplitReport) -> str:
    source = data.corpus or (data.train if split == "train" else data.validation)
    return (
        f"data {source}: no {split} row is left ({sum(report.bad.values())} bad, {report.overlong} longer than "
        f"data.max_prompt_tokens {data.max_prompt_tokens}, {report.other_tasks} of other tasks than data.tasks)"
    )
