"""Reading a model's answer as JSON of a given shape. Pure.

Models wrap JSON in thoughts, words and code fences; the last whole object that has the shape counts. Whatever else
comes is an error with a reason that can be counted.
"""

import json
from typing import Literal, TypeVar

from pydantic import BaseModel, ValidationError

from golongrl.errors import brief
from golongrl.llm.asker import LlmReply

Reason = Literal["refused", "cut", "no JSON", "wrong shape"]
# Places where an object may begin that are tried in one answer.
_MOST_OBJECTS = 50
_SHOWN = 200
_CLOSE = "</think>"

T = TypeVar("T", bound=BaseModel)


class UnusableAnswerError(Exception):
    """An answer that cannot be read; `reason` is counted, the message says more."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Reason = reason


def answer_as(shape: type[T], reply: LlmReply) -> T:
    """The last JSON object of the answer that has the shape.

    Raises:
        UnusableAnswerError: there is none; the reason says whether the call was refused, the answer cut, without
            JSON, or of another shape.
    """
    if reply.refused:
        raise UnusableAnswerError("refused", reply.refused)
    if reply.finish_reason == "length":
        raise UnusableAnswerError("cut", "the answer reached max_tokens")
    if reply.finish_reason == "content_filter":
        raise UnusableAnswerError("refused", "the endpoint's content filter ended the answer")
    text = reply.text.rpartition(_CLOSE)[2]
    found = _objects(text)
    if not found:
        raise UnusableAnswerError("no JSON", brief(text, _SHOWN) or "an empty answer")
    problem = ""
    for value in reversed(found):
        try:
            return shape.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            problem = problem or f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    raise UnusableAnswerError("wrong shape", problem)


def _objects(text: str) -> list[object]:
    """The JSON objects in a text that stand in no other one, in order."""
    found: list[object] = []
    start = text.find("{")
    for _ in range(_MOST_OBJECTS):
        if start < 0:
            break
        try:
            value, end = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            found.append(value)
        start = text.find("{", end)
    return found


_DECODER = json.JSONDecoder()
