"""The nine task types: their abilities, metrics, sub-tasks and answer formats, and how a row selects its type.

Source: the paper's task taxonomy and the selection rules of its released reward code. A row is routed by `data_source`;
rows of LongBench-Pro are routed further by their `reward_mode`, one of 25 exact sub-task names.
"""

from dataclasses import dataclass
from types import MappingProxyType

from golongrl.errors import InputError

LONGBENCH_PRO = "longbench_pro"
MATH_MARKER = "math_longcot_math_verify"  # any data_source that contains it is a math row

_LINES = "after the last [Answer] (or [答案]), one item a line"


class UnknownTaskError(InputError, ValueError):
    """No task type has this data_source, or LongBench-Pro has no such reward_mode; the message names it."""


@dataclass(frozen=True, slots=True)
class TaskType:
    """One of the nine types. `data_source` is what selects it outside LongBench-Pro; `subtasks` select it inside."""

    type: str
    ability: str
    metric: str
    answer_format: str
    data_source: str | None = None
    subtasks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Task:
    """What one row is scored by: its type ("T1".."T9"), metric, and the key that groups rows for task statistics."""

    type: str
    metric: str
    key: str


TASKS: tuple[TaskType, ...] = (
    TaskType("T1", "precise long-range information retrieval", "EM", "the exact string after </think>", "EM"),
    TaskType(
        "T2",
        "evidence-grounded comprehension and reasoning",
        "Accuracy",
        "selection: the sentence 'The correct answer is (X)'; LongBench-Pro: the first line after the last [Answer]",
        "selection",
        (
            "T3.1 Multi-Doc Integration QA",
            "T3.2 Single-Hop Fact QA",
            "T11.1 Long-Range Entity & Commitment Tracking",
            "T11.2 Short-Range Reference Resolution & State Query",
        ),
    ),
    TaskType(
        "T3",
        "high-recall exhaustive retrieval and verification",
        "F1",
        f"{_LINES}, any order",
        subtasks=(
            "T5.1 Full-Sentence Citation Alignment",
            "T5.2 Key-Statement Citation Alignment",
            "T6.2 Targeted Subset Cluster Identification",
            "T7.1 Global Conflict & Inconsistency Localization",
            "T7.2 Targeted Rule or Condition Violation Detection",
            "T7.3 Comprehensive Error & Anomaly Sweep",
            "T9.1 Dependency-Aware Multi-Version Impact Analysis",
            "T9.2 Localized Interface Change Detection",
        ),
    ),
    TaskType(
        "T4",
        "numerical extraction and quantitative reasoning",
        "math_verify",
        r"\boxed{...} within the last 500 characters",
        MATH_MARKER,
    ),
    TaskType(
        "T5",
        "multi-table structured extraction",
        "IoU",
        '<answer>{"data": [[cell, ...], ...]}</answer>, row order free',
        "multitableqa_pretraining",
    ),
    TaskType(
        "T6",
        "fragment-level structured matching and induction",
        "SubEM",
        f"{_LINES}, any order",
        subtasks=(
            "T6.1 Large-Scale Document Clustering",
            "T8.1 Structured Multi-Source Consistency Verification",
            "T8.2 Single-Source Targeted Aggregation",
            "T8.3 Long-Context Procedural State Tracking",
            "T10.1 Large-Scale In-Context Rule Induction",
            "T10.2 Targeted Example-Based Rule Induction",
        ),
    ),
    TaskType(
        "T7",
        "dimension-quantified retrieval and graded ranking",
        "NDCG",
        f"{_LINES}, best first",
        subtasks=("T1.1 Global Cohesive Retrieval", "T1.2 Key-Snippet Retrieval"),
    ),
    TaskType(
        "T8",
        "sequence reconstruction and ordering",
        "Pairwise",
        f"{_LINES}, in order",
        subtasks=(
            "T2.1 Global Timeline Reconstruction",
            "T2.2 Local Causal Chain Sorting",
            "T6.3 Global Frequency Analysis",
        ),
    ),
    TaskType(
        "T9",
        "long document summarization",
        "ROUGE-L",
        "prose after the last [Answer] (or [答案])",
        subtasks=("T4.1 Global-Coverage Constrained Summary", "T4.2 Query-Focused Summary"),
    ),
)

_BY_SOURCE = MappingProxyType({t.data_source: t for t in TASKS if t.data_source})
_BY_SUBTASK = MappingProxyType({name: t for t in TASKS for name in t.subtasks})


def task_of(data_source: object, reward_mode: object) -> Task:
    """The task of a row. Raises UnknownTaskError naming the data_source or the reward_mode that no type has.

    `key` is the metric for LongBench-Pro rows; elsewhere it is the row's own reward_mode, or its data_source if it has
    none.
    """
    if not isinstance(data_source, str):
        raise UnknownTaskError(f"data_source must be a string, got {data_source!r}")
    if data_source == LONGBENCH_PRO:
        kind = _BY_SUBTASK.get(reward_mode) if isinstance(reward_mode, str) else None
        if kind is None:
            raise UnknownTaskError(
                f"{LONGBENCH_PRO} has no reward_mode {reward_mode!r}; `golongrl reward tasks` lists them"
            )
        return Task(kind.type, kind.metric, kind.metric)
    kind = _BY_SOURCE.get(MATH_MARKER if MATH_MARKER in data_source else data_source)
    if kind is None:
        known = ", ".join(sorted([*_BY_SOURCE, LONGBENCH_PRO]))
        raise UnknownTaskError(f"unknown data_source {data_source!r} (known: {known})")
    return Task(kind.type, kind.metric, reward_mode if isinstance(reward_mode, str) and reward_mode else data_source)
