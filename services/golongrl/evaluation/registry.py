"""The benchmarks by name, and the suites of the paper."""

from collections.abc import Mapping
from types import MappingProxyType

from golongrl.evaluation.benchmark import Benchmark
from golongrl.evaluation.benchmarks.aime import AIME
from golongrl.evaluation.benchmarks.longbench_v2 import LONGBENCH_V2
from golongrl.evaluation.benchmarks.mrcr import MRCR
from golongrl.evaluation.errors import EvaluationError

BENCHMARKS: Mapping[str, Benchmark] = MappingProxyType(
    {benchmark.name: benchmark for benchmark in (LONGBENCH_V2, *MRCR, *AIME)}
)

_LONG_CONTEXT = ("longbench-v2", "mrcr-128k", "mrcr-512k", "mrcr-1m")
_GENERAL = ("aime24", "aime25")
_MEMORY: tuple[str, ...] = ()

SUITES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "long-context": _LONG_CONTEXT,
        "general": _GENERAL,
        "memory": _MEMORY,
        "paper": (*_LONG_CONTEXT, *_GENERAL, *_MEMORY),
    }
)


def benchmark(name: str) -> Benchmark:
    """The benchmark of this name.

    Raises:
        EvaluationError: there is none.
    """
    if name not in BENCHMARKS:
        raise EvaluationError(f"unknown benchmark {name!r} (known: {', '.join(BENCHMARKS)})")
    return BENCHMARKS[name]


def selected(name: str) -> tuple[Benchmark, ...]:
    """The benchmarks of a suite, or the one of this name.

    Raises:
        EvaluationError: there is neither.
    """
    if name in SUITES:
        return tuple(BENCHMARKS[member] for member in SUITES[name])
    if name not in BENCHMARKS:
        known = f"suites: {', '.join(SUITES)}; benchmarks: {', '.join(BENCHMARKS)}"
        raise EvaluationError(f"unknown suite or benchmark {name!r} ({known})")
    return (BENCHMARKS[name],)
