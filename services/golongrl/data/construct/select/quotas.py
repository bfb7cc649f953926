"""How many prompts each cell (task, length bin, language) gets. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

from golongrl.data.construct.models import Language, Select
from golongrl.recipe import TaskType


class Cell(NamedTuple):
    """A kind of prompt that the quotas count."""

    task: TaskType
    length_bin: str
    language: Language


# A few prompts say little: the score of what they belong to counts as so many of them.
_PRIOR = 4.0


@dataclass(frozen=True, slots=True)
class TaskScore:
    """How a trained model did on a prompt or on prompts of some kind; None where that is not known."""

    task: str
    score: float
    length_bin: str | None = None
    language: str | None = None
    source: str | None = None
    doc_ids: tuple[str, ...] = ()

    @property
    def general(self) -> bool:
        """Nothing but the task is known."""
        return self == TaskScore(self.task, self.score)


def cells(settings: Select, failures: tuple[TaskScore, ...] = ()) -> dict[Cell, int]:
    """Slots to begin in each cell: `oversample` for each one that is wanted."""
    return {cell: ceil(count * settings.oversample) for cell, count in quotas(settings, failures).items()}


def quotas(settings: Select, failures: tuple[TaskScore, ...] = ()) -> dict[Cell, int]:
    """Prompts that each cell shall have.

    A task's quota is split over bins and languages by their shares. With failures the shares, and the tasks' quotas
    among each other, move to what scored low; the sum stays.
    """
    weights = {
        Cell(task, one.name, language): quota * one.share * share
        for task, quota in settings.tasks.items()
        for one in settings.bins
        for language, share in settings.languages.items()
    }
    total = sum(settings.tasks.values())
    if failures:
        weights = {cell: weight * need(cell, failures, settings.feedback_strength) for cell, weight in weights.items()}
        shared = apportion(weights, total)
    else:
        shared = {}
        for task, quota in settings.tasks.items():
            shared |= apportion({cell: weight for cell, weight in weights.items() if cell.task == task}, quota)
    return {cell: count for cell, count in shared.items() if count}


def apportion(weights: Mapping[Cell, float], total: int) -> dict[Cell, int]:
    """Split `total` by weights, by largest remainders; the first cell wins a tie."""
    whole = sum(weights.values())
    if not whole:
        return dict.fromkeys(weights, 0)
    exact = {cell: total * weight / whole for cell, weight in weights.items()}
    shared = {cell: int(share) for cell, share in exact.items()}
    left = total - sum(shared.values())
    order = sorted(weights, key=lambda cell: shared[cell] - exact[cell])
    for cell in order[:left]:
        shared[cell] += 1
    return shared


def need(cell: Cell, failures: tuple[TaskScore, ...], strength: float) -> float:
    """1 where nothing is known or all was right, 1 + strength where nothing was."""
    of_task = [one for one in failures if one.task == cell.task]
    inside = [
        one.score
        for one in of_task
        if not one.general and one.length_bin in (None, cell.length_bin) and one.language in (None, cell.language)
    ]
    return _need(_mean(inside, _mean([one.score for one in of_task if one.general])), strength)


def need_of_document(task: str, doc_id: str, source: str, failures: tuple[TaskScore, ...], strength: float) -> float:
    """The same for a document as the main one of a task's prompts: by prompts about it, or about its source."""
    of_task = [one for one in failures if one.task == task]
    about_source = _mean([one.score for one in of_task if one.source == source])
    return _need(_mean([one.score for one in of_task if doc_id in one.doc_ids[:1]], about_source), strength)


def _mean(scores: Sequence[float], prior: float | None = None) -> float | None:
    """Of some scores, drawn to `prior` where they are few; None where nothing is known."""
    weight = 0.0 if prior is None else _PRIOR
    count = len(scores) + weight
    return (sum(scores) + weight * (prior or 0.0)) / count if count else None


def _need(score: float | None, strength: float) -> float:
    return 1.0 if score is None else 1.0 + strength * (1.0 - score)
