"""How much memory and time each stage of `golongrl data construct` needs that computes without a model, by documents.

    python benchmarks/data_memory.py                   # 50 and 200 documents of 160K tokens
    python benchmarks/data_memory.py --documents 500

Each stage runs in a process of its own, without workers, so that memory (as the kernel counts it) and CPU time are
those of main process and worker together. Memory should be the same for every number of documents. The documents have
the words of Python's language reference in random order, in sections.
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path
from pydoc_data.topics import topics

from rich.console import Console
from rich.table import Table

from golongrl.data.construct.load import load
from golongrl.data.construct.run import construct
from golongrl.data.construct.workers import Here

DOCUMENT_WORDS = 120_000  # about 160K tokens
SECTION_WORDS = 2_000
SENTENCE_WORDS = 15
STAGES = ("sources", "select", "generate", "format", "decontaminate", "diagnose")
TASKS = [f"T{number}" for number in range(1, 10)]


def write_documents(folder: Path, count: int, words: int) -> None:
    """Documents of sections with headings, paragraphs and years."""
    vocabulary = [word for word in " ".join(topics.values()).lower().split() if word.isalpha()]
    folder.mkdir()
    for number in range(count):
        rng = random.Random(number)
        with (folder / f"{number:05d}.md").open("w", encoding="utf-8") as out:
            for section in range(words // SECTION_WORDS):
                out.write(f"## Part {section} of document {number}\n\n")
                for _ in range(SECTION_WORDS // (4 * SENTENCE_WORDS)):
                    sentences = [" ".join(rng.choices(vocabulary, k=SENTENCE_WORDS)).capitalize() for _ in range(4)]
                    sentences[0] += f" in {rng.randrange(1200, 2000)}"
                    out.write(". ".join(sentences) + ".\n\n")


def pipeline(folder: Path, count: int, words: int) -> Path:
    """The pipeline over them, with a benchmark to look for."""
    benchmark = folder / "benchmark.jsonl"
    rng = random.Random("benchmark")
    vocabulary = " ".join(topics.values()).split()
    rows = [{"question": " ".join(rng.choices(vocabulary, k=40)), "context": " ".join(rng.choices(vocabulary, k=3000))}
            for _ in range(300)]  # fmt: skip
    benchmark.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    tree = {
        "name": "memory",
        "tokenizer": "builtin:quickstart",
        "sources": {"inputs": [{"path": str(folder / "documents"), "licence": "own"}], "max_tokens": 400_000},
        "select": {
            "tasks": dict.fromkeys(TASKS, max(1, count // len(TASKS))),
            "bins": [{"name": "all", "min_tokens": words // 2, "max_tokens": words * 4 // 3}],
        },
        "format": {"max_prompt_tokens": 400_000},
        "decontaminate": {"benchmarks": [str(benchmark)]},
    }
    file = folder / "pipeline.yaml"
    file.write_text(json.dumps(tree), "utf-8")
    return file


def run_stage(*words: object) -> tuple[float, float, int]:
    """(MB, CPU seconds, exit code) of a process that runs one stage."""
    child = os.posix_spawn(sys.executable, [sys.executable, __file__, "--run", *map(str, words)], os.environ)
    _, status, usage = os.wait4(child, 0)
    return usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime, os.waitstatus_to_exitcode(status)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--run", nargs=3, metavar=("PIPELINE", "OUT", "STAGE"), help=argparse.SUPPRESS)
    options.add_argument("--words", type=int, default=DOCUMENT_WORDS, help="Words of a document.")
    options.add_argument("--documents", type=int, nargs="+", default=[50, 200])
    arguments = options.parse_args()
    if arguments.run:
        file, out, stage = arguments.run
        construct(load(file), Path(out), Here(), print, only=stage)
        return
    table = Table("stage", *(f"{n} documents: MB" for n in arguments.documents), "CPU s a document", box=None)
    lines: dict[str, list[str]] = {stage: [stage] for stage in STAGES}
    for count in arguments.documents:
        folder = Path(tempfile.mkdtemp(prefix="golongrl-memory-"))
        try:
            write_documents(folder / "documents", count, arguments.words)
            file = pipeline(folder, count, arguments.words)
            for stage in STAGES:
                memory, seconds, code = run_stage(file, folder / "out", stage)
                if code:
                    sys.exit(f"stage {stage} failed")
                lines[stage].append(f"{memory:.0f}")
                if count == arguments.documents[-1]:
                    lines[stage].append(f"{seconds / count:.2f}")
        finally:
            shutil.rmtree(folder)
    for line in lines.values():
        table.add_row(*line)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
