"""The table of the papers: which of our benchmarks are its columns, and the numbers that were published."""

from collections.abc import Mapping
from typing import Final

# Column -> benchmark. MRCR and CorpusQA count up to 128K only.
COLUMNS: Final[Mapping[str, str]] = {
    "DocMath": "docmath",
    "LBV2": "longbench-v2",
    "Frames": "frames",
    "MRCR": "mrcr-128k",
    "CorpusQA": "corpusqa-128k",
    "LBV1-QA": "longbench-qa",
}
# As published with GoLongRL (arXiv 2605.19577), in percent, in the order of the columns.
PUBLISHED: Final[Mapping[str, tuple[float, ...]]] = {
    "Qwen3-4B-Thinking-2507": (61.0, 40.2, 64.4, 38.4, 49.9, 64.0),
    "GoLongRL-4B GRPO": (62.5, 45.5, 66.6, 67.5, 65.1, 65.9),
    "GoLongRL-4B TMN-Reweight": (62.3, 47.1, 67.4, 65.5, 69.6, 65.9),
    "GoLongRL-30B-A3B GRPO": (65.3, 55.1, 74.5, 81.6, 73.6, 68.7),
}


def average(values: tuple[float | None, ...]) -> float | None:
    """The mean of the columns; None unless every column has a number."""
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers and len(numbers) == len(values) else None


def ours(numbers: Mapping[str, float | None]) -> tuple[float | None, ...]:
    """A model's row in percent, from its benchmarks' numbers."""
    found = (numbers.get(benchmark) for benchmark in COLUMNS.values())
    return tuple(None if number is None else 100 * number for number in found)
