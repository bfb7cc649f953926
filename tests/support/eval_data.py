"""Tiny data of every benchmark, in the columns of the real one and of our own making, English and Chinese.

`write_eval_data(folder)` writes one file a source, which `DataFiles.find(folder, ...)` reads. `right_reply(problem)`
is a reply that its rules score 1.
"""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from golongrl.evaluation.benchmarks import docmath, longbench_qa
from golongrl.evaluation.problems import EvalProblem

Rows = Sequence[Mapping[str, Any]]

_PARAGRAPH = "The lighthouse keeper of Varn wrote the tide tables by hand."
_CHINESE = "瓦恩的灯塔守护人亲手写下潮汐表。"
LONG = f"{_PARAGRAPH} " * 40


def write_eval_data(folder: Path) -> Path:
    """Write the files of all sources; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (suffix, rows) in TABLES.items():
        write_rows(folder / f"{name}{suffix}", rows())
    return folder


def write_rows(path: Path, rows: Rows) -> None:
    """Write a table by the file's suffix."""
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
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


def _aime_24() -> Rows:
    """The published table of 2024 has no `answer`: its golds are boxes."""
    return [
        {
            "id": 60 + i,
            "problem": row["problem"],
            "solution": f"\\boxed{{{row['answer']}}}",
            "url": "https://example.org",
        }
        for i, row in enumerate(_aime())
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
                ("Single-Document QA", "hard", "medium", "潮汐表是怎样写的？", "A", _CHINESE * 80),
                ("Long In-context Learning", "hard", "long", "What wrote no table?", "B", LONG * 3),
            ]
        )
    ]


def _mrcr(needles: int) -> Callable[[], Rows]:
    def rows() -> Rows:
        made = []
        for i, topic in enumerate(("tapirs", "灯塔")):
            texts = [f"Verse {n} about {topic}: {_PARAGRAPH if i == 0 else _CHINESE}" for n in range(needles)]
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


def _longbench(name: str) -> Callable[[], Rows]:
    def rows() -> Rows:
        return [
            _longbench_row(
                f"{name}0", "Who wrote the tide tables?", ["the lighthouse keeper", "The keeper of Varn"], LONG
            ),
            _longbench_row(f"{name}1", "谁写了潮汐表？", ["灯塔守护人"], _CHINESE * 80),
        ]

    return rows


def _longbench_row(key: str, question: str, answers: list[str], context: str) -> dict[str, Any]:
    return {
        "input": question,
        "context": context,
        "answers": answers,
        "length": len(context.split()),
        "dataset": key.rstrip("01"),
        "language": "en",
        "all_classes": None,
        "_id": key,
    }


def _frames() -> Rows:
    articles = [{"title": "Varn", "text": LONG}, {"title": "Tide", "text": _CHINESE * 20}]
    asked = [("In which town did the keeper work?", "Varn", articles), ("How many tables?", "1,000", [])]
    return [{"Prompt": question, "Answer": gold, "wiki_items": items} for question, gold, items in asked]


def _docmath(split: str) -> Callable[[], Rows]:
    def rows() -> Rows:
        golds: list[tuple[str, Any]] = [("How high is the tide?", 12.5), ("How many?", 42), ("Is it high?", False)]
        return [
            {
                "question_id": f"{split}-testmini-{i}",
                "source": "own",
                "question": question,
                "paragraphs": [LONG, "| tide | 12.5 |", _CHINESE],
                "table_evidence": [1],
                "paragraph_evidence": [],
                "python_solution": "def solution():\n    return 12.5",
                "ground_truth": gold,
            }
            for i, (question, gold) in enumerate(golds)
        ]

    return rows


def _corpusqa() -> Rows:
    asked = [
        ("financial_zh_001", "哪一年的收入最高？", "二零二三年", _CHINESE * 80),
        ("education_en_2", "Which school is the largest?", "Alpha; Beta", LONG),
        ("real_estate_en_3", "How many flats are there?", "42", LONG),
    ]
    return [
        {
            "id": key,
            "prompt": [
                {"role": "system", "content": "You answer questions about documents."},
                {"role": "user", "content": f"{context}\n\n{question}\nEnd with: The answer is: ..."},
            ],
            "question": question,
            "answer": answer,
        }
        for key, question, answer, context in asked
    ]


def _mmlu_pro() -> Rows:
    return [
        {
            "question_id": 70 + i,
            "question": f"Which letter is number {i + 1} of the {category} list?",
            "options": [f"option {n}" for n in range(count)],
            "answer": "ABCDEFGHIJ"[i],
            "answer_index": i,
            "cot_content": "",
            "category": category,
            "src": "own",
        }
        for i, (category, count) in enumerate([("law", 10), ("law", 4), ("physics", 9)])
    ]


def _mmlu_pro_examples() -> Rows:
    return [
        {**row, "question_id": i, "cot_content": f"A: Let us count. The answer is ({row['answer']})."}
        for i, row in enumerate([*_mmlu_pro(), *_mmlu_pro()])
    ]


def _gpqa() -> Rows:
    return [
        {
            "Record ID": f"rec{i}",
            "Question": f"Which particle is number {i}?",
            "Correct Answer": "the muon\n",
            "Incorrect Answer 1": "the pion",
            "Incorrect Answer 2": "the kaon",
            "Incorrect Answer 3": "the tau",
            "High-level domain": domain,
        }
        for i, domain in enumerate(("Physics", "Chemistry", "Biology"))
    ]


def _longmemeval() -> Rows:
    kinds = [
        ("a1", "single-session-user", "Which tea do I drink?", "green tea"),
        ("a2", "single-session-assistant", "Which book did you name?", "Tides"),
        ("a3", "single-session-preference", "Which tea shall I buy?", "The user likes green tea."),
        ("a4", "multi-session", "How many cups did I buy?", 3),
        ("a5", "knowledge-update", "我现在住在哪里？", "瓦恩"),
        ("a6", "temporal-reasoning", "How many days ago did I move?", "12 days. 13 days is also acceptable."),
        ("a7_abs", "multi-session", "Which coffee do I drink?", "The user never spoke of coffee."),
    ]
    session = [
        {"role": "user", "content": "I drink green tea and bought 3 cups in Varn.", "has_answer": True},
        {"role": "assistant", "content": "Then read the book Tides. 灯塔。", "has_answer": False},
    ]
    return [
        {
            "question_id": key,
            "question_type": kind,
            "question": question,
            "answer": answer,
            "question_date": "2023/05/30 (Tue) 23:40",
            "haystack_dates": ["2023/05/20 (Sat) 02:21", "2023/05/21 (Sun) 10:00"],
            "haystack_session_ids": ["s1", "s2"],
            "haystack_sessions": [session, [{"role": "user", "content": LONG}]],
            "answer_session_ids": ["s1"],
        }
        for key, kind, question, answer in kinds
    ]


_TOLD = {
    "customer": ("My name is Michael, and I ordered on April 1, 2024.", "When did I order?", ["April 1 2024"]),
    "healthcare": ("I take 20 mg of the medicine.", "How much do I take?", ["20 mg", "twenty mg"]),
    "finance": ("Our goal is $1,250.50 a share.", "What is our goal?", ["1250.50"]),
    "student": ("我住在瓦恩。", "我住在哪里？", ["瓦恩"]),
    "notetaker": ("Remember it's Bob's turn.", "Whose turn is it?", ["Bob's", "Bob"]),
}


def _bfcl_questions() -> Rows:
    return [
        {
            "id": f"memory_{i}-{scenario}-0",
            "question": [[{"role": "user", "content": question}]],
            "involved_classes": ["MemoryAPI"],
            "scenario": scenario,
        }
        for i, (scenario, (_, question, _)) in enumerate(_TOLD.items())
    ]


def _bfcl_answers() -> Rows:
    return [
        {"id": f"memory_{i}-{scenario}-0", "ground_truth": golds, "source": told}
        for i, (scenario, (told, _, golds)) in enumerate(_TOLD.items())
    ]


def _bfcl_conversations(scenario: str) -> Callable[[], Rows]:
    def rows() -> Rows:
        told, _, _ = _TOLD[scenario]
        return [
            {
                "id": f"memory_prereq_{i}-{scenario}-{i}",
                "topic": "own",
                "question": [[{"role": "user", "content": text}] for text in texts],
                "involved_classes": ["MemoryAPI"],
                "scenario": scenario,
            }
            for i, texts in enumerate([["Good morning!", told], ["Thank you."]])
        ]

    return rows


TABLES: Mapping[str, tuple[str, Callable[[], Rows]]] = {
    "longbench-v2": (".json", _longbench_v2),
    **{f"mrcr-{needles}needle": (".parquet", _mrcr(needles)) for needles in (2, 4, 8)},
    "frames": (".jsonl", _frames),
    **{f"longbench-{name}": (".jsonl", _longbench(name)) for name in longbench_qa.SETS},
    **{f"docmath-{split}": (".json", _docmath(split)) for split in docmath.SPLITS},
    "corpusqa-128k": (".jsonl", _corpusqa),
    "corpusqa-1m": (".jsonl", _corpusqa),
    "mmlu-pro": (".parquet", _mmlu_pro),
    "mmlu-pro-examples": (".parquet", _mmlu_pro_examples),
    "aime24": (".parquet", _aime_24),
    "aime25": (".jsonl", _aime),
    "gpqa-diamond": (".csv", _gpqa),
    "longmemeval": (".json", _longmemeval),
    "bfcl-memory": (".jsonl", _bfcl_questions),
    "bfcl-memory-answers": (".jsonl", _bfcl_answers),
    **{f"bfcl-memory-{name}": (".jsonl", _bfcl_conversations(name)) for name in _TOLD},
}


def right_reply(problem: EvalProblem) -> str:
    """A reply with a thought that every mode scores 1, by rule or by a judge who agrees."""
    gold, kind = problem.golds[0], problem.source.partition("-")[0]
    forms = {
        "mrcr": "{gold}",
        "aime24": "It is \\boxed{{{gold}}}.",
        "aime25": "It is \\boxed{{{gold}}}.",
        "gpqa": "ANSWER: {gold}",
        "mmlu": "ANSWER: {gold}",
        "longmemeval": "{gold}",
        "corpusqa": "The answer is: {gold}",
        "bfcl": '{{"answer": "{gold}", "context": "You told me."}}',
        "frames": "Therefore, the answer is ({gold}).",
        "docmath": "no" if gold == "False" else "Therefore, the answer is {gold}",
    }
    form = "The correct answer is ({gold})" if problem.source == "longbench-v2" else forms.get(kind)
    answer = (form or "Therefore, the answer is ({gold})").format(gold=gold)
    return f"<think>I look for it.</think>\n\n{answer}"
