"""The sections of a pipeline that say how questions are generated and verified, and which models are asked."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from golongrl.errors import url_without_secret
from golongrl.llm import Budget, Endpoint
from golongrl.recipe.fields import (
    NonNegativeFloat,
    NonNegativeInt,
    Place,
    PositiveFloat,
    PositiveInt,
    Probability,
    Section,
    TaskType,
)

# Rewards below count as a wrong answer. Metrics of one right answer give 0 or 1; of the graded ones, half of the
# maximum. Of an order (T8) half of the pairs are right by chance; a summary shares at most a good part of its words
# with another one of the same text.
PASS_THRESHOLDS: dict[TaskType, float] = {
    "T1": 0.99, "T2": 0.99, "T3": 0.5, "T4": 0.99, "T5": 0.5, "T6": 0.5, "T7": 0.5, "T8": 0.75, "T9": 0.2,
}  # fmt: skip


def _thresholds(given: dict[TaskType, float]) -> dict[TaskType, float]:
    return {**PASS_THRESHOLDS, **given}


Thresholds = Annotated[dict[TaskType, Probability], AfterValidator(_thresholds)]


class AskedModel(Section):
    """A model behind an OpenAI chat endpoint, ours or an outside one. Its key is in an environment variable."""

    url: Annotated[str, AfterValidator(url_without_secret)] = Field(
        description="Base URL of the endpoint, ending in /v1."
    )
    model: str = Field(description="Name under which the endpoint knows the model.")
    key_variable: str = Field("GOLONGRL_LLM_API_KEY", description="Environment variable that holds the key.")
    concurrency: PositiveInt = Field(16, description="Most calls in flight; fewer are made while the server is busy.")
    deadline_s: PositiveFloat = Field(900.0, description="Longest that one attempt at a call may take.")
    attempts: PositiveInt = Field(
        6, description="Attempts at a call before the stage ends; a rerun continues from there."
    )
    max_tokens: PositiveInt = Field(16_384, description="Most tokens of an answer, thoughts included.")
    temperature: NonNegativeFloat = Field(0.7, description="Sampling temperature.")
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(0.95, description="Nucleus.")
    schema_mode: bool = Field(
        True, description="Ask the endpoint to keep to a JSON schema; false where it does not know `response_format`."
    )

    def endpoint(self) -> Endpoint:
        """How the client takes it."""
        return Endpoint(
            self.url, self.model, self.concurrency, self.deadline_s, self.attempts, key_variable=self.key_variable
        )

    def asked(self) -> dict[str, object]:
        """What of this the answers depend on."""
        return self.model_dump(include={"model", "max_tokens", "temperature", "top_p", "schema_mode"})


class Spending(Section):
    """The most that one start of a stage may ask for; what is in the store of replies costs nothing."""

    calls: PositiveInt | None = Field(None, description="Most calls, attempts that failed included; null is no bound.")
    tokens: PositiveInt | None = Field(None, description="Most tokens of prompts and answers; null is no bound.")

    def budget(self) -> Budget:
        """An unspent budget of that size."""
        return Budget(self.calls, self.tokens)


Replies = Annotated[
    Place | None,
    Field(
        description="SQLite file that keeps the replies of models; several pipelines may share it. Null is "
        "replies.sqlite in the output folder."
    ),
]


class Generate(Section):
    """Phase 3, synthetic track: questions, answers and evidence for the selected documents."""

    by_model: dict[TaskType, Probability] = Field(
        {}, description="Part of a task type's prompts that a model writes; code writes the others."
    )
    models: dict[str, AskedModel] = Field(
        {},
        description="The model that writes the prompts of a length bin, by the bin's name; `default` for the others.",
    )
    tries: PositiveInt = Field(3, description="Answers asked for until one can be used.")
    budget: Spending = Spending()
    replies: Replies = None

    @model_validator(mode="after")
    def _has_models(self) -> Self:
        if any(self.by_model.values()) and not self.models:
            raise ValueError("by_model: no model is named in `models`")
        return self


class Verify(Section):
    """Phase 3: a second model answers with and without the documents. A row that it can answer without them teaches
    nothing about long contexts; one that it cannot answer with them may be wrong."""

    model: AskedModel
    tries: PositiveInt = Field(4, description="n: answers asked for with the documents, and without.")
    agree: PositiveInt = Field(1, description="k: answers of the n with the documents that have to be right.")
    guesses: NonNegativeInt = Field(0, description="Answers without the documents that may be right.")
    padded_tries: NonNegativeInt = Field(
        2, description="Answers asked for with other documents around; one has to be right. 0 leaves that out."
    )
    padding: NonNegativeFloat = Field(
        1.0, description="Length of the documents around, in lengths of the context; cut to `max_padded_tokens`."
    )
    max_padded_tokens: PositiveInt = Field(131_072, description="Most tokens of context and padding, estimated.")
    code_golds: bool = Field(
        True, description="Take golds that code has computed for right, and ask for those without the documents only."
    )
    thresholds: Thresholds = Field(
        PASS_THRESHOLDS, description="Least strict reward of a right answer; types left out keep their default."
    )
    budget: Spending = Spending()
    replies: Replies = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.agree > self.tries:
            raise ValueError(f"agree {self.agree} exceeds tries {self.tries}")
        return self


class PassrateModel(Section):
    """A model that answers the prompts on the rollout path, and how it samples."""

    path: Place = Field(description="Hugging Face folder or hub id, as `model.path` of a recipe.")
    dtype: Literal["float32", "bfloat16"] = Field("bfloat16", description="Precision of the engines.")
    context_length: PositiveInt = Field(description="Longest prompt plus response the engines accept, in tokens.")
    max_response_tokens: PositiveInt = Field(16_384, description="Longest response.")
    temperature: PositiveFloat = Field(1.0, description="Sampling temperature.")
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="Nucleus.")
    concurrent_groups: PositiveInt = Field(8, description="Prompts that one worker holds at a time.")
    enable_thinking: bool | None = Field(None, description="As `data.enable_thinking` of a recipe.")


class PassratePool(Section):
    """The engines that answer: started here, or elsewhere with workers that share a Redis and the output folder."""

    engines: PositiveInt = Field(1, description="Engines started on this machine, each with its rollout worker.")
    engine: Literal["embedded", "sglang"] = Field(
        "embedded", description="What they are, as in `golongrl train --engine`."
    )
    sglang_venv: Place = Field(".venv-sglang", description="Where `make sglang` installed SGLang.")
    redis_url: Annotated[str, AfterValidator(url_without_secret)] | None = Field(
        None,
        description="Start nothing, and wait for workers on this Redis: the stage prints the command that starts one. "
        "They have to mount the output folder. The password comes from GOLONGRL_REDIS_PASSWORD.",
    )


class Passrate(Section):
    """Phase 3: how often models of the policy's size answer right: 8 answers of a small model, and of a large one where
    the small one fails. Bands are the paper's."""

    small: PassrateModel
    large: PassrateModel | None = Field(
        None, description="Asked where the small one passes fewer than half; null drops those rows as undecided."
    )
    thresholds: Thresholds = Field(
        PASS_THRESHOLDS, description="Least strict reward of an answer that passes; types left out keep their default."
    )
    repeats: NonNegativeInt = Field(
        3, description="Times that a prompt is answered again because responses of it were not scored."
    )
    keep: tuple[str, ...] = Field(("easy", "medium", "hard"), description="Bands that are kept.")
    batch: PositiveInt = Field(16, description="Prompts whose rewards are written together.")
    pool: PassratePool = PassratePool()
