"""A small construction without a model: English and Chinese documents, all nine task types."""

import json
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from golongrl.data.construct.models import Pipeline

# Topics that are long enough to be asked about.
ENGLISH = ("typesseq", "class", "import", "with", "try", "assignment", "execmodel", "formatstrings")
DEBIAN = Path("/usr/share/debian-reference")


def chinese_sections() -> str:
    """Chinese of our own: sections whose words differ in how often they occur."""
    subjects = ("税率", "仓库", "船只", "商人", "码头", "粮食", "盐场", "书信")
    lines = []
    for number, subject in enumerate(subjects, start=1):
        other = subjects[number % len(subjects)]
        lines.append(f"## 第{number}节 {subject}的管理")
        lines.append(
            f"本节说明港口如何管理{subject}。管理处在{1900 + 7 * number}年制定了规则，要求每月检查{subject}"
            f"{number + 2}次，把结果记录在册，并在每年年底向全体居民公布{subject}的数量、用途和保管人的姓名，"
            "以便日后查对。"
        )
        for turn in range(number % 4 + 2):
            lines.append(
                f"第{turn + 1}次检查以后，{subject}的数量增加到{120 * number + 13 * turn}，"
                f"而{other}的数量没有变化；负责人向会议报告了{subject}的情况，会议决定继续执行原来的规则。"
            )
    return "\n\n".join(lines)


def english_sections() -> str:
    """English of our own: sections that open with a paragraph which sums them up."""
    subjects = ("tariffs", "warehouses", "vessels", "merchants", "wharves", "grain", "salt works", "letters")
    lines = []
    for number, subject in enumerate(subjects, start=1):
        other = subjects[number % len(subjects)]
        lines.append(f"## Part {number}: the {subject}")
        lines.append(
            f"This part tells how the harbour office managed the {subject} of the town from {1900 + 7 * number} on, "
            f"why it counted them {number + 2} times in every month, what the clerks wrote in their reports, and what "
            "the council decided about them in the end."
        )
        for turn in range(number % 4 + 2):
            lines.append(
                f"At count number {turn + 1} the office found {120 * number + 13 * turn} of the {subject}, while "
                f"nobody had looked at the {other}. The clerk wrote a report on the {subject} and sent it to the "
                f"council, which met {turn + 3} days later and left the rules for the {subject} as they had been."
            )
    return "\n\n".join(lines)


def write_documents(folder: Path, *, debian: bool = False) -> Path:
    """Documents in both languages, `reference` and `prose`; real Chinese too where it is installed and asked for."""
    reference, prose = folder / "reference", folder / "prose"
    reference.mkdir(parents=True)
    prose.mkdir()
    for name in ENGLISH:
        (reference / f"{name}.txt").write_text(topics[name], "utf-8")
    for page in sorted(DEBIAN.glob("ch0*.zh-cn.html")) if debian else []:
        (reference / page.name).write_bytes(page.read_bytes())
    (prose / "harbour.md").write_text(english_sections(), "utf-8")
    (prose / "port.md").write_text(chinese_sections(), "utf-8")
    return folder


def hotpot(file: Path, count: int) -> dict[str, Any]:
    """Rows in HotpotQA's columns, written to `file`; the entry of `convert.inputs` that reads them."""
    rows = [
        {
            "question": f"On which river is town {number}?",
            "answer": f"Ardo {number}",
            "context": {"title": [f"Velm {number}"], "sentences": [[f"Velm {number} lies on the Ardo {number}."]]},
            "supporting_facts": {"title": [f"Velm {number}"], "sent_id": [0]},
        }
        for number in range(count)
    ]
    file.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    return {"path": str(file), "reader": "hotpotqa"}


def tree(folder: Path, each: int = 2, **changed: Any) -> dict[str, Any]:
    """The pipeline over such a folder, as YAML has it."""
    return {
        "name": "small",
        "seed": 3,
        "sources": {
            "inputs": [
                {"path": str(folder / "reference"), "licence": "PSF-2.0"},
                {"path": str(folder / "prose"), "licence": "Apache-2.0"},
            ],
            "near_duplicate": None,
        },
        "select": {
            # A context may be cut so that no section opens in it: more summaries are begun.
            "tasks": {**{f"T{number}": each for number in range(1, 9)}, "T9": 4 * each},
            # Few sections of a reference open with prose that can stand for them.
            "criteria": {"T9": {"sources": ["prose"]}},
            "languages": {"English": 1.0, "Chinese": 1.0},
            "bins": [{"name": "short", "min_tokens": 300, "max_tokens": 900}],
        },
        **changed,
    }


def pipeline(folder: Path, each: int = 2, **changed: Any) -> Pipeline:
    """The same, checked."""
    return Pipeline.model_validate_json(json.dumps(tree(folder, each, **changed)))
