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
            f"{number + 2}次，并把结果记录在册。"
        )
        for turn in range(number % 4 + 1):
            lines.append(
                f"第{turn + 1}次检查以后，{subject}的数量增加到{120 * number + 13 * turn}，"
                f"而{other}的数量没有变化；负责人向会议报告了{subject}的情况，会议决定继续执行原来的规则。"
            )
    return "\n\n".join(lines)


def write_documents(folder: Path, *, debian: bool = False) -> Path:
    """A folder of documents in both languages; real Chinese where the Debian package is installed and asked for."""
    folder.mkdir(parents=True)
    for name in ENGLISH:
        (folder / f"{name}.txt").write_text(topics[name], "utf-8")
    pages = sorted(DEBIAN.glob("ch0*.zh-cn.html")) if debian else []
    for page in pages:
        (folder / page.name).write_bytes(page.read_bytes())
    if not pages:
        (folder / "port.md").write_text(chinese_sections(), "utf-8")
    return folder


def tree(folder: Path, each: int = 2, **changed: Any) -> dict[str, Any]:
    """The pipeline over such a folder, as YAML has it."""
    return {
        "name": "small",
        "seed": 3,
        "sources": {"inputs": [{"path": str(folder), "licence": "PSF-2.0"}], "near_duplicate": None},
        "select": {
            # Few sections open with prose that can stand for them, so more summaries are begun.
            "tasks": {**{f"T{number}": each for number in range(1, 9)}, "T9": 4 * each},
            "languages": {"English": 1.0, "Chinese": 1.0},
            "bins": [{"name": "short", "min_tokens": 300, "max_tokens": 900}],
        },
        **changed,
    }


def pipeline(folder: Path, each: int = 2, **changed: Any) -> Pipeline:
    """The same, checked."""
    return Pipeline.model_validate_json(json.dumps(tree(folder, each, **changed)))
