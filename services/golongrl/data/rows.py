"""One row of a dataset, in the format of `Kwai-Klear/GoLongRL`; files of rows are read by `golongrl.data.row_files`.

Unknown fields are kept; missing or mistyped ones are refused with the place of the row and the key.
"""

import json
import math
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from golongrl.data.errors import DataError
from golongrl.tasks.scoring import plain_truth

# Types of pydantic's errors, in words for a person who wrote the row.
_EXPECTED: Final = {
    "model_type": "expected an object",
    "list_type": "expected a list",
    "string_type": "expected a string",
    "too_short": "it is empty",
}
# As pydantic names the forms of a value in its path.
_FORMS: Final = frozenset({"str", "list[str]"})
# Keys by which an object that was written as text is known.
_OF_TRUTH: Final = frozenset({"golden_label", "doc_ids"})


class _RowPart(BaseModel):
    # Datasets carry fields of their own: they are kept, not refused.
    model_config = ConfigDict(extra="allow", frozen=True)


def _as_text(value: object) -> object:
    """Public sets write numeric gold answers as numbers."""
    if isinstance(value, list):
        return [_as_text(item) for item in value]
    return _finite(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _finite(number: float) -> str:
    if not math.isfinite(number):
        raise ValueError(f"{number} is not a finite number, so that no answer could equal it")
    return repr(number)


def _as_mapping(value: object) -> object:
    """Most public sets give the gold answer itself instead of this format's mapping."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return value
    if isinstance(value, str) and _is_truth(value):
        raise ValueError("it is an object written as text, which every answer would have to repeat; write the object")
    return plain_truth(value if isinstance(value, str) else _finite(value))


def _is_truth(text: str) -> bool:
    if not text.lstrip().startswith("{"):
        return False
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and not _OF_TRUTH.isdisjoint(found)


class Message(_RowPart):
    """A chat message."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


class GroundTruth(_RowPart):
    """What the response is scored against (which field depends on the task; see `golongrl.tasks`)."""

    doc_ids: list[str] = Field(default_factory=list, description="Gold items of LongBench-Pro rows.")
    golden_label: Annotated[str | list[str], BeforeValidator(_as_text)] = Field(
        "", description="Gold answer of the other rows."
    )
    summary: str = Field("English", description="The LANGUAGE of the row, in spite of its name.")


class RewardModel(_RowPart):
    """The dataset nests the gold answer in this."""

    ground_truth: Annotated[GroundTruth, BeforeValidator(_as_mapping)]


class ExtraInfo(_RowPart):
    """Which rule scores the row, and the bare question."""

    reward_mode: str
    question: str = ""


class Row(_RowPart):
    """A prompt with its gold answer."""

    data_source: str
    prompt: list[Message] = Field(min_length=1)
    ability: str = ""
    reward_model: RewardModel
    extra_info: ExtraInfo

    @property
    def ground_truth(self) -> dict[str, Any]:
        """The gold answer as a plain mapping, as `golongrl.tasks.score` takes it."""
        return self.reward_model.ground_truth.model_dump()


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What stands where a record cannot be decoded, and why."""

    kind: Literal["not JSON", "not UTF-8", "not readable", "too large"]
    reason: str


def parse_row(record: object, where: str) -> Row:
    """Check one decoded record.

    Raises:
        DataError: naming `where` and the first wrong key.
    """
    if isinstance(record, Unreadable):
        raise DataError(f"{where}: {record.reason}")
    if not isinstance(record, dict):
        raise DataError(f"{where}: expected an object, got {type(record).__name__}")
    try:
        return Row.model_validate(record)
    except ValidationError as error:
        found = dict(_told(problem) for problem in reversed(error.errors()))
        *others, (key, said) = found.items()
        more = f" (and {len(others)} more)" if others else ""
        raise DataError(f"{where}: {said if said.startswith('missing key') else f'{key}: {said}'}{more}") from error


def _told(error: ErrorDetails) -> tuple[str, str]:
    """The key of a problem, and what is wrong there."""
    path = [str(part) for part in error["loc"]]
    if (form := next((at for at, part in enumerate(path) if part in _FORMS), None)) is not None:
        # The same once for each form that the value may have.
        return ".".join(path[:form]), "expected a string or a list of strings"
    key = ".".join(path)
    if error["type"] == "missing":
        return key, f"missing key {key}"
    return key, _EXPECTED.get(error["type"], error["msg"].removeprefix("Value error, "))
