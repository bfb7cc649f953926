"""What is wrong with the rows of a dataset file, one by one."""

import json
from collections.abc import Iterator
from pathlib import Path

from golongrl.data.errors import DataError
from golongrl.data.rows import Row, parse_row, read_records
from golongrl.tasks import UnknownTaskError, task_of


def problems(path: Path) -> Iterator[str | None]:
    """For every row None, or one line that names file, row and key.

    Raises:
        DataError: the file itself cannot be read.
    """
    for where, record in read_records(path):
        try:
            problem = problem_of(parse_row(record, where))
        except DataError as error:
            yield str(error)
        else:
            yield f"{where}: {problem}" if problem else None


def problem_of(row: Row) -> str | None:
    """Why a well-formed row cannot be scored, or None: its task is unknown or its gold answer is missing."""
    try:
        task = task_of(row.data_source, row.extra_info.reward_mode)
    except UnknownTaskError as error:
        return str(error)
    gold = row.reward_model.ground_truth
    key = "reward_model.ground_truth"
    if row.data_source == "longbench_pro":
        return None if any(item.strip() for item in gold.doc_ids) else f"{key}.doc_ids: empty"
    if not gold.golden_label:
        return f"{key}.golden_label: empty"
    return _table_problem(gold.golden_label, key) if task.type == "T5" else None


def _table_problem(label: str | list[str], key: str) -> str | None:
    try:
        table = json.loads(label) if isinstance(label, str) else None
    except json.JSONDecodeError as error:
        return f"{key}.golden_label: not JSON: {error}"
    if not isinstance(table, dict) or not isinstance(table.get("data"), list):
        return f'{key}.golden_label: expected JSON of the form {{"data": [...]}}'
    return None
