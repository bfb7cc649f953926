"""From bytes to a batch that can be scored (or a refusal that says which field of which item is wrong), and back.

Pure: no request object, no clock, no queue. Refusals carry the HTTP status: 413 too large, 422 not understood.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

import pydantic_core
from pydantic import ValidationError

from golongrl.reward.config import RewardConfig
from golongrl.reward.items import Answer, Lost, encode
from golongrl.reward.models import Fault, Problem, ScoreRequest, ScoreResult
from golongrl.tasks import Outcome, Task, UnknownTaskError, task_of
from golongrl.tasks.registry import LONGBENCH_PRO

_MOST_FAULTS = 20  # listed in one answer: enough to see the pattern, bounded whatever comes in
_LONGEST_MESSAGE = 500  # characters


class RefusedError(Exception):
    """The request is not accepted: the HTTP status, the answer's body and headers."""

    def __init__(self, status: int, problem: Problem, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(problem.detail)
        self.status, self.problem, self.headers = status, problem, dict(headers or {})


@dataclass(frozen=True)
class ScoreBatch:
    """A request that may be queued: each item's task, and its payload for the worker pool."""

    request: ScoreRequest
    tasks: list[Task]
    payloads: list[bytes]
    deadline_s: float


def clean(text: str) -> str:
    """`text` as one answer's line may carry it: valid Unicode, not longer than a few lines."""
    cut = text if len(text) <= _LONGEST_MESSAGE else text[: _LONGEST_MESSAGE - 1] + "…"
    return cut.encode("utf-8", "replace").decode("utf-8")


def refuse(status: int, detail: str, faults: list[Fault] | None = None) -> NoReturn:
    """Raise RefusedError with a Problem."""
    raise RefusedError(status, Problem(detail=clean(detail), errors=(faults or [])[:_MOST_FAULTS]))


def read_batch(body: bytes, config: RewardConfig) -> ScoreBatch:
    """Parse, validate and encode a request body. Raises RefusedError (413, 422)."""
    return read_request(_validate(_parse(body), config), config)


def read_request(request: ScoreRequest, config: RewardConfig) -> ScoreBatch:
    """Check and encode a request that is already typed. Raises RefusedError (413, 422)."""
    deadline_s = config.deadline_s if request.deadline_s is None else request.deadline_s
    if deadline_s > config.max_deadline_s:
        _refuse_fields([Fault(item=None, id=None, field="deadline_s", message=f"above {config.max_deadline_s:g}")])
    return ScoreBatch(request, _tasks(request), _payloads(request, config), deadline_s)


def result_of(name: str, task: Task, answer: Answer) -> ScoreResult:
    """One item's result from what its worker said or did. A lost item is unscored, never 0."""
    if isinstance(answer.value, Lost):
        reason = clean(answer.value.reason)
        return ScoreResult(id=name, status="unscored", score=None, metric=task.metric, task=task.type, reason=reason)
    outcome: Outcome = answer.value
    return ScoreResult(
        id=name,
        status=outcome.status,
        score=outcome.score,
        # Empty where the text was judged before its data_source was looked at; the row's task is known all the same.
        metric=outcome.metric or task.metric,
        task=outcome.task or task.type,
        reason=clean(outcome.reason) if outcome.reason else None,
    )


def _parse(body: bytes) -> Any:
    """The body's JSON. Pydantic's parser is a third faster; the standard one reads what that refuses (a lone surrogate,
    deep nesting) or says what is wrong with it.
    """
    with suppress(ValueError):
        return pydantic_core.from_json(body, allow_inf_nan=False)
    try:
        return json.loads(body, parse_constant=_no_constant)
    except RecursionError:
        refuse(422, "the body nests too deep to be read")
    except ValueError as error:  # bad JSON, bad UTF-8, an integer of thousands of digits
        refuse(422, f"the body is not valid JSON: {error}")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _validate(raw: Any, config: RewardConfig) -> ScoreRequest:
    items = raw.get("items") if isinstance(raw, dict) else None
    if isinstance(items, list) and len(items) > config.max_batch:
        refuse(413, f"items holds {len(items)} items, the limit is {config.max_batch}: send smaller batches")
    try:
        return ScoreRequest.model_validate(raw)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        _refuse_fields([_fault(details["loc"], details["msg"], items) for details in found[:_MOST_FAULTS]])


def _fault(loc: tuple[int | str, ...], message: str, items: Any) -> Fault:
    inside = len(loc) >= 2 and loc[0] == "items" and isinstance(loc[1], int)
    index = int(loc[1]) if inside else None
    path = loc[2:] if inside else loc
    return Fault(
        item=index,
        id=_id_of(items, index),
        field=clean(".".join(map(str, path))) or ("item" if inside else "body"),
        message=clean(message),
    )


def _id_of(items: Any, index: int | None) -> str | None:
    item = items[index] if index is not None and isinstance(items, list) else None
    name = item.get("id") if isinstance(item, dict) else None
    return clean(name) if isinstance(name, str) else None


def _refuse_fields(faults: list[Fault], status: int = 422) -> NoReturn:
    first = faults[0]
    where = first.field if first.item is None else f"items[{first.item}].{first.field}"
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    refuse(status, f"{where}: {first.message}{more}", faults)


def _tasks(request: ScoreRequest) -> list[Task]:
    """Each item's task. An unknown one refuses the whole batch: it is a fault of the dataset, not of a response."""
    tasks: list[Task] = []
    faults: list[Fault] = []
    for index, item in enumerate(request.items):
        try:
            tasks.append(task_of(item.data_source, item.extra_info.get("reward_mode")))
        except UnknownTaskError as error:
            name = "extra_info.reward_mode" if item.data_source == LONGBENCH_PRO else "data_source"
            faults.append(Fault(item=index, id=item.id, field=name, message=clean(str(error))))
    if faults:
        _refuse_fields(faults)
    return tasks


def _payloads(request: ScoreRequest, config: RewardConfig) -> list[bytes]:
    payloads: list[bytes] = []
    for index, item in enumerate(request.items):
        try:
            payload = encode(item.data_source, item.response, item.ground_truth, item.extra_info, request.mode)
        except RecursionError:
            _refuse_fields([Fault(item=index, id=item.id, field="ground_truth", message="nests too deep")])
        if len(payload) > config.max_item_bytes:
            message = f"the item has {len(payload)} bytes, the limit is {config.max_item_bytes}"
            _refuse_fields([Fault(item=index, id=item.id, field="response", message=message)], 413)
        payloads.append(payload)
    return payloads
