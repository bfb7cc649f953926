"""The one check of dataset rows, for `data check`, `data prepare` and `train`: every row, every fault.

A row is refused if it cannot be decoded or is not of the format, if its task is unknown, if a message shows no
character, if the last one is the assistant's (nothing is left to answer), if its gold answer does not earn full marks
by its own metric (nobody could be scored right), or if it repeats another row.
Faults are counted by kind and listed up to a bound; a bad row never hides the rows behind it.
"""

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from golongrl.data import keys_once
from golongrl.data.errors import DataError
from golongrl.data.row_files import read_records
from golongrl.data.rows import Row, Unreadable, parse_row
from golongrl.errors import brief
from golongrl.tasks import Mode, Outcome, UnknownTaskError, task_of
from golongrl.tasks.gold import earns_full_marks, own_score

# Letters, signs and marks that are drawn as nothing, though their category does not say so.
_FILLERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {chr(code) for code in range(0xFE00, 0xFE10)}
# Findings listed where they are not what was asked for; beyond, they are counted only.
MOST_LISTED = 20
_LONGEST_LINE = 500  # characters of one finding
_KEY = "reward_model.ground_truth"


@dataclass(frozen=True, slots=True)
class Finding:
    """One bad row: which (file and row), what kind of fault, and the line for a person."""

    where: str
    kind: str
    message: str

    def __str__(self) -> str:
        line = f"{self.where}: {self.message}".encode("utf-8", "backslashreplace").decode("utf-8")
        return line if len(line) <= _LONGEST_LINE else line[: _LONGEST_LINE - 1] + "…"


@dataclass(slots=True)
class Findings:
    """What is wrong with the rows of one source; `skip` says whether bad rows are left out or end the work."""

    source: str
    skip: bool = False
    rows: int = 0
    most_listed: int = MOST_LISTED
    kinds: Counter[str] = field(default_factory=Counter)
    listed: list[str] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        """Count a bad row, and list it while there is room."""
        self.kinds[finding.kind] += 1
        if len(self.listed) < self.most_listed:
            self.listed.append(str(finding))

    @property
    def bad(self) -> int:
        return self.kinds.total()

    @property
    def refused(self) -> bool:
        """Whether these rows will not be used whatever follows."""
        return bool(self.bad) and not self.skip

    def summary(self) -> str:
        """One line: how many rows are bad, by kind."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.kinds.most_common())
        return f"{self.bad} of {self.rows} rows cannot be used ({kinds})"

    def lines(self) -> list[str]:
        """The listed findings, and how many more there are."""
        more = self.bad - len(self.listed)
        return [*self.listed, *([f"... and {more} more"] if more > 0 else [])]

    def refuse(self) -> None:
        """Raise DataError with all of it if bad rows end the work."""
        if self.refused:
            way_out = "repair them, or leave them out with --skip-bad (data.bad_rows: skip)"
            raise DataError("\n  ".join([f"data {self.source}: {self.summary()}; {way_out}", *self.lines()]))


Judge = Callable[[object, object, Mapping[str, Any] | None, Mode], Outcome]
"""What a row's own gold earns: `own_score`, or the same with a deadline."""
Measure = Callable[[Row], int]


@dataclass(frozen=True, slots=True)
class LengthLimit:
    """The longest prompt that is good, and how prompts are measured."""

    most_tokens: int
    measure: Measure


def examined(
    path: str | Path, mode: Mode | None, judge: Judge = own_score, limit: LengthLimit | None = None
) -> Iterator[tuple[str, Row | Finding]]:
    """Every row with its file and number, good or not. Without a mode golds are not scored.

    Raises:
        DataError: there is no such file, or its suffix is not read.
    """
    # Golds that differ by case and spaces alone do not teach different things.
    seen: dict[bytes, tuple[str, bytes]] = {}
    for where, record in read_records(path):
        found = _examine(where, record, mode, judge)
        if isinstance(found, Row) and limit and (long := _overlong(found, where, limit)):
            found = long
        if isinstance(found, Row):
            exact = _digest(found, found.ground_truth)
            first, before = seen.setdefault(_digest(found, _plain(found.ground_truth)), (where, exact))
            if first != where:
                but = "gold answer as" if before == exact else "gold answer, but for case and spaces, as"
                found = Finding(where, "duplicate", f"the same prompt and {but} {first}")
        yield where, found


def checked_rows(
    path: str | Path, mode: Mode | None, findings: Findings, judge: Judge = own_score, limit: LengthLimit | None = None
) -> Iterator[tuple[str, Row]]:
    """The good rows of `examined`; the others go to `findings`."""
    for where, found in examined(path, mode, judge, limit):
        findings.rows += 1
        if isinstance(found, Finding):
            findings.add(found)
        else:
            yield where, found


def problems(path: str | Path, mode: Mode = "compat") -> Iterator[str | None]:
    """For every row None, or one line that names file, row and key."""
    for _, found in examined(path, mode):
        yield str(found) if isinstance(found, Finding) else None


def _overlong(row: Row, where: str, limit: LengthLimit) -> Finding | None:
    try:
        length = limit.measure(row)
    except DataError as error:
        return Finding(where, "refused by the chat template", str(error))
    if length <= limit.most_tokens:
        return None
    return Finding(where, "too long", f"prompt: {length} tokens, at most {limit.most_tokens} are asked for")


def _examine(where: str, record: object, mode: Mode | None, judge: Judge) -> Row | Finding:
    if isinstance(record, Unreadable):
        return Finding(where, record.kind, record.reason)
    try:
        row = parse_row(record, where)
    except DataError as error:
        return Finding(where, "not of the format", str(error).removeprefix(f"{where}: "))
    found = _unwritable(row) or _unscorable(row, mode, judge)
    return Finding(where, *found) if found else row


def _unwritable(row: Row) -> tuple[str, str] | None:
    for number, message in enumerate(row.prompt):
        if message.role != "system" and not _shows(message.content):
            return "empty message", f"prompt.{number}.content: empty" + _unseen(message.content)
    if not any(_shows(message.content) for message in row.prompt):
        return "empty message", "prompt: every message is empty"
    if row.prompt[-1].role == "assistant":
        return (
            "already answered",
            f"prompt.{len(row.prompt) - 1}.role: the last message is the assistant's, so nothing is left to answer",
        )
    for key in row.model_fields_set | set(row.model_extra or {}):
        try:
            value = row.model_dump(mode="json", include={key})
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
        except (ValueError, TypeError, RecursionError) as error:
            return "not writable", f"{key}: cannot be written as JSON: {brief(error, 200)}"
    return None


def _shows(text: str) -> bool:
    """Whether a person sees anything of it: white space, format characters and fillers show nothing."""
    return not all(
        character.isspace() or character in _FILLERS or unicodedata.category(character) in ("Cc", "Cf")
        for character in text
    )


def _unseen(text: str) -> str:
    return f" (invisible characters alone: {text[:20]!a})" if text.strip() else ""


def _unscorable(row: Row, mode: Mode | None, judge: Judge) -> tuple[str, str] | None:
    """Why no answer to a well-formed row can be scored right, as kind and message."""
    try:
        task = task_of(row.data_source, row.extra_info.reward_mode)
    except UnknownTaskError as error:
        return "of an unknown task", str(error)
    gold = row.reward_model.ground_truth
    if row.data_source == "longbench_pro":
        if not any(_shows(item) for item in gold.doc_ids):
            return "without a gold answer", f"{_KEY}.doc_ids: empty" + _unseen("".join(gold.doc_ids))
    elif blank := [label for label in _labels(gold.golden_label) or [""] if not _shows(label)]:
        return "without a gold answer", f"{_KEY}.golden_label: empty" + _unseen(blank[0])
    elif task.type == "T5" and (problem := _table_problem(gold.golden_label)):
        return "with a gold answer of another kind", problem
    if mode is None:
        return None
    outcome = judge(row.data_source, row.ground_truth, row.extra_info.model_dump(), mode)
    if earns_full_marks(outcome, mode):
        return None
    earned = "cannot be scored" if outcome.score is None else f"earns {outcome.score:.3g} of 1"
    reason = f" ({outcome.reason})" if outcome.reason else ""
    key = "doc_ids" if row.data_source == "longbench_pro" else "golden_label"
    return "whose own gold answer is not right", f"{_KEY}.{key}: {earned} by {task.metric} in {mode} mode{reason}"


def _labels(label: str | list[str]) -> list[str]:
    return [label] if isinstance(label, str) else label


def _table_problem(label: str | list[str]) -> str | None:
    try:
        table = json.loads(label, object_pairs_hook=keys_once.once) if isinstance(label, str) else None
    except json.JSONDecodeError as error:
        return f"{_KEY}.golden_label: not JSON: {error}"
    except (RecursionError, ValueError) as error:
        return f"{_KEY}.golden_label: not JSON that can be read: {error}"
    if not isinstance(table, dict) or not isinstance(table.get("data"), list):
        return f'{_KEY}.golden_label: expected JSON of the form {{"data": [...]}}'
    return None


def _digest(row: Row, gold: Any) -> bytes:
    content = [[(message.role, message.content) for message in row.prompt], row.data_source, gold]
    text = json.dumps([*content, row.extra_info.reward_mode], sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.blake2b(text.encode("ascii"), digest_size=16).digest()


def _plain(value: Any) -> Any:
    """A gold answer without case and spaces that are not between words."""
    if isinstance(value, str):
        return " ".join(value.casefold().split())
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
