"""How a sample of each task type is scored where a model wrote it: its data_source and reward_mode."""

from collections.abc import Mapping
from types import MappingProxyType

from golongrl.data.construct.generators import counting, retrieval, sequence, summaries
from golongrl.recipe import TaskType

KINDS: Mapping[TaskType, tuple[str, str]] = MappingProxyType(
    {
        "T1": retrieval.EM,
        "T2": retrieval.SELECTION,
        "T3": retrieval.EXHAUSTIVE,
        "T4": counting.MATH,
        "T5": counting.TABLE,
        "T6": sequence.FRAGMENTS,
        "T7": counting.RANKING,
        "T8": sequence.ORDER,
        "T9": summaries.GLOBAL_SUMMARY,
    }
)
