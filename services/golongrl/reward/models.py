"""What travels over the scoring API: requests, results and the one shape of every error.

Shared by the service and its client, so it is light: no web framework, no metric.

Invariants:
- strict: an unknown field or a value of the wrong type is refused with its path, never coerced;
- `score` is a number exactly when `status` is "scored"; `reason` says why it is not.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator

from golongrl.recipe.fields import ScoringMode

Status = Literal["scored", "unscored"]


def _is_text(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("must be a string")
    return value


# Any text JSON can carry. A lone surrogate is no reason to refuse a batch (pydantic's own str would): metrics score it.
Text = Annotated[str, PlainValidator(_is_text), WithJsonSchema({"type": "string"})]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Item(_Strict):
    """One response to score, with what its dataset row says about the right answer."""

    id: Annotated[str, Field(max_length=256)] = Field(
        description="Comes back with the result; any name the caller likes."
    )
    data_source: Annotated[str, Field(max_length=256)] = Field(
        description="The row's data_source; an unknown one refuses the batch.", examples=["EM"]
    )
    response: Text = Field(description="The full text the policy wrote.", examples=["<think>so</think>42"])
    ground_truth: Any = Field(
        description="The row's reward_model.ground_truth, as it stands in the dataset.",
        examples=[{"doc_ids": [], "golden_label": "42", "summary": "English"}],
    )
    extra_info: dict[str, Any] = Field(
        default_factory=dict,
        description="The row's extra_info; longbench_pro rows need its reward_mode.",
        examples=[{"reward_mode": "EM"}],
    )


class ScoreRequest(_Strict):
    """A batch of items; results come back in the same order."""

    mode: ScoringMode = Field("compat", description="`compat`: the original's rules; `strict`: its openings closed.")
    items: Annotated[list[Item], Field(min_length=1)] = Field(description="Responses to score.")
    deadline_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None,
        description="Seconds one item may compute; null is the service's default.",
        examples=[10.0],
    )


class ScoreResult(_Strict):
    """The outcome of one item. An unscored item has no score, which is not a zero."""

    id: str
    status: Status
    score: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = Field(
        description="In [0, 1]; null exactly when the item is unscored."
    )
    metric: str = Field(description="The metric's name, e.g. F1.")
    task: str = Field(description="The task type, T1 to T9.")
    reason: str | None = Field(description="Why the item is unscored, or was scored without a look at its answer.")

    @model_validator(mode="after")
    def _score_iff_scored(self) -> Self:
        if (self.status == "scored") != (self.score is not None):
            raise ValueError("score must be a number exactly when status is scored")
        return self


class ScoreResponse(_Strict):
    """Results in the order of the request's items."""

    results: list[ScoreResult]


class Fault(_Strict):
    """One thing wrong with a request: which item, which field, what about it."""

    item: int | None = Field(description="Index of the item in the batch; null when the fault is not an item's.")
    id: str | None = Field(description="That item's id, where it has a valid one.")
    field: str = Field(description="Dotted path inside the item (or the request), e.g. extra_info.reward_mode.")
    message: str


class Problem(_Strict):
    """Every answer that is not a success has this shape."""

    detail: str = Field(description="One line that names what is wrong and what to do.")
    errors: list[Fault] = Field(default_factory=list, description="Faults one by one, at most 20 of them.")


class Health(_Strict):
    """Answer of the probes."""

    status: Literal["ok", "starting"]
    workers: int = Field(description="Workers that are warm.")
    detail: str
    waits: str = Field("", description="What the service waits for, as heartbeats have it; for the chain of a stall.")
