"""T5 about tables that the text itself has: rows by a value, counts of groups, two tables joined.

The gold is a query in SQL over the cells as they are written.
"""

import re
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from golongrl.data.construct.generators.counting import ROWS, rows_sample
from golongrl.data.construct.generators.desk import Desk
from golongrl.data.construct.generators.sample import MadeSample

# A table as markdown has it: a head, a rule (which tables of HTML pages come without), rows.
_TABLE = re.compile(r"^\|.+\|[ \t]*\n(?:\|(?:\s*:?-+:?\s*\|)+[ \t]*\n)?(?:\|.*\|[ \t]*(?:\n|\Z))+", re.MULTILINE)
_RULE = re.compile(r"\|(?:\s*:?-+:?\s*\|)+")
_LEAST_TABLE_ROWS = 4


@dataclass(frozen=True, slots=True)
class FactTable:
    """A table of the text: its columns, its rows, and the line of each row."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[str, ...]

    def values(self, column: int) -> list[str]:
        """The cells of a column."""
        return [row[column] for row in self.rows]


def tables_of(desk: Desk) -> list[FactTable]:
    """The tables of the context that a question can name by their columns.

    A row that stands in the text twice would be two places for one fact, so such a table is left out.
    """
    found = [table for match in _TABLE.finditer(desk.outline.context) if (table := _parsed(match[0]))]
    heads = Counter(table.head for table in found)
    context = desk.outline.context
    return [table for table in found if heads[table.head] == 1 and all(context.count(one) == 1 for one in table.lines)]


def _parsed(text: str) -> FactTable | None:
    lines = [line.strip() for line in text.strip().split("\n")]
    lines = [line for line in lines if not _RULE.fullmatch(line)]
    head, *rows = (tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines)
    whole = all(len(row) == len(head) for row in rows) and all(head) and len(set(head)) == len(head) > 1
    return FactTable(head, tuple(rows), tuple(lines[1:])) if whole and len(rows) >= _LEAST_TABLE_ROWS else None


def _answer(tables: Sequence[FactTable], sql: str, *given: object) -> list[tuple[Any, ...]]:
    """The answer of a query over tables `t0`, `t1` with the columns `c0`, `c1` and so on, all of them texts."""
    with closing(sqlite3.connect(":memory:")) as db:
        for number, table in enumerate(tables):
            names = ", ".join(f"c{place} TEXT" for place in range(len(table.head)))
            db.execute(f"CREATE TABLE t{number} ({names})")
            db.executemany(f"INSERT INTO t{number} VALUES ({', '.join('?' * len(table.head))})", table.rows)
        return db.execute(sql, given).fetchall()


def table_query(desk: Desk) -> MadeSample:
    """The rows of a table that have a value, with two of their columns."""
    found = [
        (table, column, value)
        for table in tables_of(desk)
        for column in range(len(table.head))
        for value, times in Counter(table.values(column)).items()
        if value and ROWS[0] <= times <= min(ROWS[1], len(table.rows) - 1)
    ]
    table, column, value = desk.one(found, "no table with a repeated value")
    others = [other for other in range(len(table.head)) if other != column]
    shown = desk.rng.sample(others, min(2, len(others)))
    picked = ", ".join(f"c{place}" for place in shown)
    answer = _answer([table], f"SELECT {picked} FROM t0 WHERE c{column} = ? ORDER BY rowid", value)
    wanted = ", ".join(table.head[place] for place in shown)
    question = desk.say(
        f"The text has a table with the columns: {', '.join(table.head)}. For every row of it whose "
        f"{table.head[column]} is {desk.quoted(value)}, give one row [{wanted}], the cells as they are written, as "
        "strings.",
        f"文中有一个表格，列为：{', '.join(table.head)}。对其中{table.head[column]}为{desk.quoted(value)}的每一行，"
        f"给出一行 [{wanted}]，单元格按原文书写，一律写成字符串。",
    )
    lines = tuple(line for row, line in zip(table.rows, table.lines, strict=True) if row[column] == value)
    return rows_sample(desk, question, answer, "table-query", lines)


def table_groups(desk: Desk) -> MadeSample:
    """For each value of a column of a table, how many rows have it."""
    found = [
        (table, column)
        for table in tables_of(desk)
        for column in range(len(table.head))
        if ROWS[0] <= len(values := Counter(table.values(column))) <= min(ROWS[1], len(table.rows) - 1) and all(values)
    ]
    table, column = desk.one(found, "no table with a repeated value")
    answer = _answer([table], f"SELECT c{column}, count(*) FROM t0 GROUP BY c{column} ORDER BY min(rowid)")
    name = table.head[column]
    question = desk.say(
        f"The text has a table with the columns: {', '.join(table.head)}. For every different {name} in it, give one "
        f"row [{name}, number of rows of the table with it], the {name} as it is written.",
        f"文中有一个表格，列为：{', '.join(table.head)}。对其中每个不同的{name}，给出一行 [{name}, 表中有该值的行数]，"
        f"{name}按原文书写。",
    )
    return rows_sample(desk, question, answer, "table-groups", table.lines)


def tables_join(desk: Desk) -> MadeSample:
    """Two tables that share values: for each of them a cell of one table and a cell of the other."""
    tables = tables_of(desk)
    found = [
        (one, a, other, b, common)
        for one in tables
        for other in tables
        if one is not other
        for a in range(len(one.head))
        for b in range(len(other.head))
        # Keys: each value once in its column, so that a row has one partner.
        if len(set(one.values(a))) == len(one.rows)
        and len(set(other.values(b))) == len(other.rows)
        and ROWS[0] <= len(common := set(one.values(a)) & set(other.values(b)) - {""}) <= ROWS[1]
    ]
    one, a, other, b, common = desk.one(found, "no two tables with common values")
    left = desk.rng.choice([place for place in range(len(one.head)) if place != a])
    right = desk.rng.choice([place for place in range(len(other.head)) if place != b])
    answer = _answer(
        [one, other],
        f"SELECT t0.c{a}, t0.c{left}, t1.c{right} FROM t0 JOIN t1 ON t0.c{a} = t1.c{b} WHERE t0.c{a} <> '' "
        "ORDER BY t0.rowid",
    )
    columns = ", ".join(one.head), ", ".join(other.head)
    wanted = f"{one.head[a]}, {one.head[left]}, {other.head[right]}"
    question = desk.say(
        f"The text has a table with the columns: {columns[0]}; and another one with the columns: {columns[1]}. For "
        f"every value that stands both in the column {one.head[a]} of the first and in the column {other.head[b]} of "
        f"the second, give one row [{wanted}], the last from the second table; the cells as they are written, as "
        "strings.",
        f"文中有一个表格，列为：{columns[0]}；另有一个表格，列为：{columns[1]}。对既出现在第一个表格的{one.head[a]}列、又出现在"
        f"第二个表格的{other.head[b]}列的每个值，给出一行 [{wanted}]，"
        "最后一项取自第二个表格；单元格按原文书写，一律写成字符串。",
    )
    lines = [line for row, line in zip(one.rows, one.lines, strict=True) if row[a] in common]
    lines += [line for row, line in zip(other.rows, other.lines, strict=True) if row[b] in common]
    return rows_sample(desk, question, answer, "tables-join", tuple(lines))
