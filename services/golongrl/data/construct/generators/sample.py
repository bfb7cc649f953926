"""What a generator makes of documents, or why it makes nothing."""

from dataclasses import dataclass, field
from typing import Literal

from golongrl.recipe import TaskType

Language = Literal["English", "Chinese"]


@dataclass(frozen=True, slots=True)
class Document:
    """A kept document of `sources`."""

    title: str
    text: str


@dataclass(frozen=True, slots=True)
class MadeSample:
    """A question about `context`, with its gold answer.

    `golds` is the gold of LongBench-Pro rows, `answer` that of the others. `evidence` are passages that stand in the
    context word for word and hold what the answer follows from.
    """

    task: TaskType
    lang: Language
    data_source: str
    reward_mode: str
    context: str
    question: str
    generator: str
    evidence: tuple[str, ...]
    answer: str = ""
    golds: tuple[str, ...] = field(default=())

    def ground_truth(self) -> dict[str, object]:
        """The gold answer as `golongrl.tasks.score` takes it."""
        return {"doc_ids": list(self.golds), "golden_label": self.answer, "summary": self.lang}


class NoSampleError(Exception):
    """The documents yield no sample; `reason` is counted, the message says more."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
