"""How fast the CPU work of `golongrl data construct` is on one core, and how much memory a worker needs.

    python benchmarks/data_pipeline.py                 # 3 million words in documents of about 160K tokens
    python benchmarks/data_pipeline.py --words 300000

CPU seconds are counted, not wall time, so that a busy machine does not blur the result. Polars runs in one thread
(POLARS_MAX_THREADS=1 is set here); `golongrl data construct` runs one process a core. The words are those of Python's
language reference in random order, so that hardly any n-gram repeats; the benchmark index has 432,000 n-grams, of which
20 were planted in the documents.
"""

import os

os.environ["POLARS_MAX_THREADS"] = "1"

import argparse
import json
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics

from rich.console import Console
from rich.table import Table

from golongrl.data.construct.contamination.index import build, open_index
from golongrl.data.construct.contamination.texts import BenchmarkFile
from golongrl.data.construct.grams import token_hashes
from golongrl.data.construct.sources.similar import signature
from golongrl.data.construct.tokens import measure_of
from golongrl.data.overlap import N, normalise, tokens

# The measured speed of polars on this machine's kind: 3.0 M words in 8.9 s, normalising included, on two cores.
POLARS_WORDS_S = 3_000_000 / 8.9 / 2
DOCUMENT_WORDS = 120_000  # about 160K tokens
BENCHMARK_WORDS = 432_000
PLANTED = 20
MB = 1 << 20


def documents(words: int, rng: random.Random) -> list[str]:
    """Documents of the vocabulary's words in random order, with marks and capitals."""
    vocabulary = " ".join(topics.values()).split()
    lengths = [DOCUMENT_WORDS] * (words // DOCUMENT_WORDS) + (
        [words % DOCUMENT_WORDS] if words % DOCUMENT_WORDS else []
    )
    return [" ".join(rng.choices(vocabulary, k=length)) for length in lengths]


def spent(call: Callable[[], object]) -> float:
    """CPU seconds."""
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--words", type=int, default=3_000_000)
    options.add_argument("--tokenizer", default="builtin:quickstart")
    arguments = options.parse_args()
    rng = random.Random(1)
    texts = documents(arguments.words, rng)
    counted = sum(len(tokens(text)) for text in texts)
    table = Table("on one core", "CPU s", "words/s", "times polars as measured before", box=None)

    def line(name: str, call: Callable[[], object], *, compared: bool = False) -> None:
        seconds = spent(call)
        speed = counted / seconds
        table.add_row(name, f"{seconds:.1f}", f"{speed:,.0f}", f"{speed / POLARS_WORDS_S:.1f}" if compared else "")

    with tempfile.TemporaryDirectory() as folder:
        item = documents(BENCHMARK_WORDS, rng)
        benchmark = Path(folder) / "benchmark.jsonl"
        rows = [json.dumps({"question": piece}) for text in item for piece in _pieces(text)]
        benchmark.write_text("\n".join(rows), "utf-8")
        for number in range(PLANTED):
            words = item[0].split()[number * 400 : number * 400 + 40]
            place = rng.randrange(len(texts))
            texts[place] = f"{texts[place]} {' '.join(words).upper()}"
        seconds = spent(lambda: build([BenchmarkFile("b", benchmark, "0")], N, Path(folder)))
        index = open_index(build([BenchmarkFile("b", benchmark, "0")], N, Path(folder)))
        found = []
        line("normalise alone", lambda: [normalise(text) for text in texts])
        line("13-gram join: normalise, cut, hash, look up, confirm by text",
             lambda: found.extend(index.context_hits(text)[0] for text in texts), compared=True)  # fmt: skip
        hashed = [token_hashes(text) for text in texts]
        line("MinHash (128 permutations, 5-word shingles) of hashed words", lambda: [signature(one) for one in hashed])
        measure = measure_of(arguments.tokenizer)
        line(f"tokenising ({arguments.tokenizer})", lambda: measure.count(texts))
        Console(width=130).print(table)
        print(f"{counted:,} words in {len(texts)} documents; {len(index.grams):,} n-grams indexed: {seconds:.1f} CPU s")
        print(f"n-grams of the benchmark found in documents: {sum(found)} (planted: {PLANTED} passages)")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"peak memory of this process, which holds all documents: {peak:.0f} MB")


def _pieces(text: str) -> list[str]:
    words = text.split()
    return [" ".join(words[start : start + 600]) for start in range(0, len(words), 600)]


if __name__ == "__main__":
    main()
