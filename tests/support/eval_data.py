"""Tiny data of every benchmark, in the columns of the real one and of our own making, English and Chinese.

`write_eval_data(folder)` writes one file a source, which `DataFiles.find(folder, ...)` reads. `right_reply(problem)`
is a reply that its rules score 1.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from golongrl.evaluation.benchmark import EvalProblem

Rows = Sequence[Mapping[str, Any]]

_PARAGRAPH = "The lighthouse keeper of Varn wrote the tide tables by hand."
_ABSATZ = "瓦恩的灯塔守护人亲手写下潮汐表。"
LONG = f"{_PARAGRAPH} " * 40


def write_eval_data(folder: Path) -> Path:
    """Write the files of all sources; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (suffix, rows) in TABLES.items():
        write_rows(folder / f"{name}{suffix}", rows())
    return folder


def write_rows(path: Path, rows: Rows) -> None:
    """Write a table by the file's suffix."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(list(rows), ensure_ascii=False, indent=1), "utf-8")
    else:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def _aime() -> Rows:
    return [
        {"id": "0", "problem": "What is $12 \\cdot 17$?", "answer": "204"},
        {"id": "1", "problem": "How many primes are below 10?", "answer": "004"},
    ]


def _longbench_v2() -> Rows:
    return [
        {
            "_id": f"66f{i:05d}",
            "domain": domain,
            "sub_domain": "Detail",
            "difficulty": difficulty,
            "length": length,
            "question": question,
            "choice_A": "by hand",
            "choice_B": "by machine",
            "choice_C": "never",
            "choice_D": "yearly",
            "answer": answer,
            "context": context,
        }
        for i, (domain, difficulty, length, question, answer, context) in enumerate(
            [
                ("Single-Document QA", "easy", "short", "How were the tide tables written?", "A", LONG),
                ("Single-Document QA", "hard", "medium", "潮汐表是怎样写的？", "A", _ABSATZ * 80),
                ("Long In-context Learning", "hard", "long", "What wrote no table?", "B", LONG * 3),
            ]
        )
    ]


def _mrcr(needles: int) -> Callable[[], Rows]:
    def rows() -> Rows:
        made = []
        for i, topic in enumerate(("tapirs", "灯塔")):
            texts = [f"Verse {n} about {topic}: {_PARAGRAPH if i == 0 else _ABSATZ}" for n in range(needles)]
            messages = []
            for text in texts:
                messages += [{"role": "user", "content": f"Write a verse about {topic}."}]
                messages += [{"role": "assistant", "content": text}]
            prefix = f"h{needles}{i}Qx"
            last = f"Put {prefix} before verse 2 (counted from 1) about {topic} and write nothing else."
            messages.append({"role": "user", "content": last})
            prompt = json.dumps(messages, ensure_ascii=False)
            made.append(
                {
                    "prompt": prompt,
                    "answer": prefix + texts[1],
                    "random_string_to_prepend": prefix,
                    "n_needles": needles,
                    "desired_msg_index": 3,
                    "total_messages": len(messages),
                    "n_chars": len(prompt),
                }
            )
        return made

    return rows


TABLES: Mapping[str, tuple[str, Callable[[], Rows]]] = {
    "longbench-v2": (".json", _longbench_v2),
    "mrcr-2needle": (".parquet", _mrcr(2)),
    "mrcr-4needle": (".parquet", _mrcr(4)),
    "mrcr-8needle": (".parquet", _mrcr(8)),
    "aime24": (".jsonl", _aime),
    "aime25": (".jsonl", _aime),
}


def right_reply(problem: EvalProblem) -> str:
    """A reply with a thought that every mode scores 1, by rule or by a judge who agrees."""
    gold = problem.golds[0]
    if problem.source.startswith("mrcr"):
        answer = gold
    elif problem.source.startswith("aime"):
        answer = f"It is \\boxed{{{gold}}}."
    else:
        answer = f"The correct answer is ({gold})"
    return f"<think>I look for it.</think>\n\n{answer}"
