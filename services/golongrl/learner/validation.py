"""Validation during training: the rollout pool answers the held-out prompts with one version, scored per task.

The learner opens a round in the queue for the version it has just announced, waits until every row is answered, writes
the answers to `validation/step_N.jsonl` and the means into the step's metrics. Answers to a suite's problems
(evaluation/held_out.py) come unscored, and are scored here.

Invariants:
- the answers of step N are from exactly version N: only engines that hold it get rows, and nothing newer is announced
  before the round is over;
- the wait is bounded and reports what it waits for; a round that is not complete by then reports counts but no
  averages, because the rows that came in time are not a fair sample;
- an unscored answer is counted as such and is in no average;
- `step_N.jsonl` is complete or absent; a replayed step takes its numbers from it;
- a step is validated once: `ROWS` in its record in metrics.jsonl shows that it was, and that record is written before a
  checkpoint of the step counts. A round that a signal or a death interrupts stays open; whoever resumes at its step
  continues it.
"""

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import structlog

from golongrl.data.prepared import BENCHMARK, Prepared
from golongrl.errors import InputError
from golongrl.evaluation import held_out
from golongrl.learner.fsync import replace, writing
from golongrl.learner.observe.status import LearnerStatus
from golongrl.queue import SampleQueue, ValidationResult
from golongrl.recipe import Learner, Recipe

log = structlog.get_logger()

FOLDER = "validation"
# In the metrics of every round that ended, and of no other.
ROWS = "val-aux/rows"
# Looking costs one small script.
_POLL_S = 0.2

Answer = dict[str, Any]


def due(step: int, learner: Learner, *, ended: bool = False) -> bool:
    """Whether the weights after `step` optimizer steps are to be validated: every `test_freq`, and at the end.

    Args:
        ended: the data ended with this step, which is known only when no batch comes after it.
    """
    if step == 0:
        return learner.val_before_train
    return learner.test_freq > 0 and (step % learner.test_freq == 0 or step == learner.steps or ended)


def metrics_of(answers: Sequence[Answer], rows: int) -> dict[str, float]:
    """The round in numbers, under verl's names where it has one.

    `val-core/SOURCE/reward/mean@1`, `val_by_type/T1` and `val/mean` are means over scored answers, and only there when
    all `rows` were answered, as is `val-suite/BENCHMARK/`, which benchmarks have instead; `val-aux/` has counts, the
    mean response length in tokens, and the share cut by it.
    """
    rewarded = [answer for answer in answers if answer["task"] != BENCHMARK]
    scored = [answer for answer in rewarded if answer["score"] is not None]
    numbers = {
        ROWS: float(rows),
        "val-aux/missing": float(rows - len(answers)),
        "val-aux/unscored": float(len(rewarded) - len(scored)),
    }
    sampled = [answer for answer in answers if answer["finish_reason"]]
    if sampled:
        numbers["val-aux/response_length/mean"] = fmean(answer["tokens"] for answer in sampled)
        numbers["val-aux/response_length/clip_ratio"] = fmean(answer["finish_reason"] == "length" for answer in sampled)
    if len(answers) == rows:
        numbers |= held_out.metrics([answer for answer in answers if answer["task"] == BENCHMARK])
    if len(answers) == rows and scored:
        for pattern, key in (("val-core/{}/reward/mean@1", "data_source"), ("val_by_type/{}", "task")):
            parts = defaultdict(list)
            for answer in scored:
                parts[answer[key]].append(answer["score"])
            numbers |= {pattern.format(name): fmean(scores) for name, scores in parts.items()}
        numbers["val/mean"] = fmean(answer["score"] for answer in scored)
    return numbers


async def _nothing() -> None:
    """What there is to repair where nobody says how."""


class ValidationRounds:
    """The validation rounds of one attachment to the run."""

    def __init__(
        self, recipe: Recipe, queue: SampleQueue, data: Prepared | None, out: Path, status: LearnerStatus
    ) -> None:
        """
        Raises:
            InputError: the recipe asks for validation and the prepared data has none.
        """
        self._learner = recipe.learner
        self._thinking = recipe.data.enable_thinking is not False
        if data is None and (self._learner.test_freq or self._learner.val_before_train):
            raise InputError(
                "learner.test_freq or val_before_train: the prepared data has no validation/; "
                "set data.validation, data.validation_suite or data.validation_prompts and prepare it again"
            )
        self._queue = queue
        self._data = data
        self._folder = out / FOLDER
        self._status = status
        self.running = False

    def forget_after(self, version: int) -> None:
        """Remove answers of versions above the queue's: they belong to an earlier attempt at the run."""
        for path in self._folder.glob("step_*.jsonl"):
            step = path.stem.removeprefix("step_")
            if step.isdecimal() and int(step) > version:
                path.unlink()

    async def run(
        self,
        step: int,
        fence: str,
        lineage: str,
        stopping: asyncio.Event,
        repair: Callable[[], Awaitable[None]] = _nothing,
    ) -> dict[str, float]:
        """Validate the version of `step`, of this lineage; its metrics. `repair` is called while engines are waited
        for.

        Engines can answer only for the announced weights. A replayed step before them has the answers that were written
        the first time, even if a replay has changed the lineage since.

        Returns:
            Nothing if `stopping` ended the validation, or if its weights and answers are gone.
        """
        data = self._data
        assert data is not None  # or the recipe would not ask for it
        announced = await self._queue.weights()
        current = announced is not None and (announced.version, announced.lineage) == (step, lineage)
        answers = self._written(step, lineage if current else None)
        if answers is None and not current:
            log.warning(
                "not validated: the weights of this step are no longer announced, and it has no answers on disk",
                step=step,
            )
            return {}
        if answers is None:
            self.running = True
            try:
                results = await self._round(step, fence, lineage, len(data), stopping, repair)
            finally:
                self.running = False
            if results is None:
                return {}
            answers = [_answer(step, lineage, data, result) for result in results]
            rows = [(answer, data.row(answer["row"])) for answer in answers if answer["task"] == BENCHMARK]
            await held_out.score(rows, thinking=self._thinking)
            await asyncio.to_thread(self._write, step, answers)
        if current:
            # Also if the learner that wrote the answers died before it could do this.
            await self._queue.validation.close(fence)
        numbers = metrics_of(answers, len(data))
        log.info(
            "validation", step=step, mean=numbers.get("val/mean"), rows=len(data), missing=len(data) - len(answers)
        )
        return numbers

    async def _round(
        self,
        step: int,
        fence: str,
        lineage: str,
        rows: int,
        stopping: asyncio.Event,
        repair: Callable[[], Awaitable[None]],
    ) -> list[ValidationResult] | None:
        """What the pool answered by the deadline; None when `stopping` came first."""
        work = self._queue.validation
        await work.open(fence, step, lineage, rows)
        deadline = time.monotonic() + self._learner.validation_deadline_s
        while (progress := await work.progress()).done < rows:
            self._status.set(
                f"validating version {step}: {progress}",
                step,
                on="rollout",
                what=f"answers that validate version {step}",
            )
            if time.monotonic() > deadline:
                log.error(
                    "validation timed out; averages not reported",
                    step=step,
                    progress=str(progress),
                    deadline_s=self._learner.validation_deadline_s,
                )
                break
            if stopping.is_set():
                log.warning("validation interrupted by a signal", step=step, progress=str(progress))
                return None
            await repair()
            await asyncio.sleep(_POLL_S)
        return await work.results(rows)

    def _file(self, step: int) -> Path:
        return self._folder / f"step_{step}.jsonl"

    def _written(self, step: int, lineage: str | None) -> list[Answer] | None:
        """The answers of an earlier round; with a lineage, only of those weights. None where they cannot be read."""
        path = self._file(step)
        try:
            # Lines end with \n alone: a response may hold what `splitlines` takes for an end, too.
            answers: list[Answer] = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
            lineages = {answer["lineage"] for answer in answers}
            metrics_of(answers, len(answers))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            log.warning(
                "the answers of an earlier validation cannot be read, and do not count",
                file=str(path),
                error=f"{type(error).__name__}: {error}",
            )
            return None
        return answers if lineage is None or lineages <= {lineage} else None

    def _write(self, step: int, answers: Sequence[Answer]) -> None:
        with writing("validation answers", self._file(step)):
            self._folder.mkdir(parents=True, exist_ok=True)
            replace(self._file(step), "".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in answers))


def _answer(step: int, lineage: str, data: Prepared, result: ValidationResult) -> Answer:
    """One line of the file: verl's `output`, `gts`, `score`, `step`, and what tells the row and its answer apart."""
    row = data.row(result.row)
    return {
        "step": step,
        "row": result.row,
        "task": row.task,
        "data_source": row.data_source,
        "reward_mode": row.reward_mode,
        "score": result.reward,
        "reason": result.reason,
        "tokens": result.tokens,
        "finish_reason": result.finish_reason,
        "worker": result.worker,
        "lineage": lineage,
        "gts": row.ground_truth,
        "output": result.response,
    }
