"""The benchmarks by name, and the suites of the paper."""

from collections.abc import Mapping
from types import MappingProxyType

from golongrl.evaluation.benchmark import Benchmark
from golongrl.evaluation.benchmarks.aime import AIME
from golongrl.evaluation.benchmarks.bfcl_memory import BFCL_MEMORY
from golongrl.evaluation.benchmarks.corpusqa import CORPUSQA
from golongrl.evaluation.benchmarks.docmath import DOCMATH
from golongrl.evaluation.benchmarks.frames import FRAMES
from golongrl.evaluation.benchmarks.gpqa import GPQA
from golongrl.evaluation.benchmarks.longbench_qa import LONGBENCH_QA
from golongrl.evaluation.benchmarks.longbench_v2 import LONGBENCH_V2
from golongrl.evaluation.benchmarks.longmemeval import LONGMEMEVAL
from golongrl.evaluation.benchmarks.mmlu_pro import MMLU_PRO
from golongrl.evaluation.benchmarks.mrcr import MRCR
from golongrl.evaluation.errors import EvaluationError

_LONG_CONTEXT = (DOCMATH, LONGBENCH_V2, FRAMES, *MRCR, *CORPUSQA, LONGBENCH_QA)
# The six columns that the papers average.
_TABLE = (DOCMATH, LONGBENCH_V2, FRAMES, MRCR[0], CORPUSQA[0], LONGBENCH_QA)
_GENERAL = (MMLU_PRO, *AIME, GPQA)
_MEMORY = (BFCL_MEMORY, LONGMEMEVAL)
_ALL = (*_LONG_CONTEXT, *_GENERAL, *_MEMORY)

BENCHMARKS: Mapping[str, Benchmark] = MappingProxyType({benchmark.name: benchmark for benchmark in _ALL})

SUITES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        name: tuple(benchmark.name for benchmark in members)
        for name, members in (
            ("table", _TABLE),
            ("long-context", _LONG_CONTEXT),
            ("general", _GENERAL),
            ("memory", _MEMORY),
            ("paper", _ALL),
        )
    }
)

# What may stand where a suite is asked for: a benchmark alone is a suite of one.
NAMES = (*SUITES, *BENCHMARKS)


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
