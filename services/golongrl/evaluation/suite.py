"""A Suite: which benchmarks are asked of which model, how, and who judges. Strict YAML, like a recipe.

Invariants: an unknown key is refused with the nearest known one; a Suite never changes after it was read; null means
the benchmark's own value (the paper's), so that a packaged suite repeats the paper unless a key says otherwise.
"""

import difflib
import json
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator

from golongrl import recipe as recipes
from golongrl import yaml_text
from golongrl.errors import InputError
from golongrl.evaluation.kinds import Mode, Rule
from golongrl.evaluation.registry import BENCHMARKS, NAMES, SUITES
from golongrl.recipe.fields import NonNegativeFloat, Place, PositiveFloat, PositiveInt, Section
from golongrl.recipe.load import file_text, read_mapping

# The judge of the released evaluation is asked for a sentence and a verdict; a judge that thinks needs room for it.
_JUDGE_TOKENS = 8192
TopP = Annotated[float, Field(gt=0, le=1)]


class SuiteError(InputError):
    """The suite cannot be used; the message is one line a person can act on."""


class TargetSection(Section):
    """The evaluated model: an endpoint that serves it, or weights that an engine is started for."""

    place: Place | None = Field(
        None,
        description="URL of an OpenAI-compatible endpoint (several separated by commas), a Hugging Face folder, a "
        "checkpoint (global_step_N), a run's folder (runs/NAME: all its checkpoints), or release:NAME, the pool of a "
        "running release, from inside its cluster. `--target` sets it.",
    )
    model: str | None = Field(None, description="Name of the model at the endpoint; null takes the only one it serves.")
    tokenizer: Place | None = Field(
        None, description="Folder of the evaluated model's tokenizer; null takes it from the weights."
    )
    api_key_variable: str = Field(
        "GOLONGRL_EVAL_API_KEY", description="Environment variable that holds the endpoint's key."
    )
    engine: Literal["auto", "embedded", "sglang"] = Field(
        "auto",
        description="What is started for weights: SGLang where it is installed and a GPU is found, else embedded.",
    )
    sglang_venv: Place = Field(".venv-sglang", description="Where SGLang is installed, if not beside this program.")
    tools: Literal["auto", "native", "text"] = Field(
        "auto",
        description="How tools are offered (BFCL memory): as the API has it, or described in the prompt (`text`), "
        "which the embedded engine needs and `auto` then takes.",
    )
    embedder: Place | None = Field(
        None, description="Folder of all-MiniLM-L6-v2, for the vector backend of BFCL memory; null leaves it out."
    )
    engine_arguments: tuple[str, ...] = Field((), description="Further words of the started engine's command line.")
    gpus: PositiveInt = Field(1, description="GPUs of one started SGLang server (its --tp-size).")


class SamplingSection(Section):
    """How answers are drawn; null is the benchmark's own value."""

    temperature: NonNegativeFloat | None = Field(None, description="Temperature.")
    top_p: TopP | None = Field(None, description="Nucleus.")
    top_k: PositiveInt | None = Field(
        None, description="Most likely tokens to draw from; null leaves it to the server."
    )
    max_tokens: PositiveInt | None = Field(None, description="Longest answer, thought included.")
    repeats: PositiveInt | None = Field(None, description="How often each problem is asked (32 for AIME).")
    seed: int | None = Field(
        0,
        description="Each request's seed follows from it, the problem and the repeat. null sends none, for servers "
        "that refuse the field.",
    )
    enable_thinking: bool | None = Field(
        None,
        description="Passed to the chat template where it knows the switch; null leaves its default. false also says "
        "that the model does not think: a cut reply without thought tags is then an answer and no thought.",
    )


class ContextSection(Section):
    """How much of a long prompt is sent."""

    length: PositiveInt | None = Field(None, description="Prompt plus answer in tokens; null is the benchmark's own.")
    input_tokens: PositiveInt | None = Field(
        None, description="Longest prompt below what the context leaves; null is the benchmark's own."
    )
    rule: Rule | None = Field(
        None,
        description="A prompt that does not fit is counted as skipped (`skip`), loses the middle of its longest "
        "message (`middle`) or ends the run (`refuse`); null is the benchmark's own.",
    )
    yarn: bool = Field(
        True, description="Start engines with the rope scaling that a benchmark beyond 256K tokens needs."
    )


class LimitsSection(Section):
    """Requests: how many at a time, how long, how often. None of these changes a score."""

    samples: PositiveInt | None = Field(
        None, description="Problems of each benchmark, evenly spread over its data; null asks all. `--limit` sets it."
    )
    concurrency: PositiveInt = Field(64, description="Most requests in flight; fewer when the server is full.")
    pool_concurrency: PositiveInt = Field(
        8,
        description="The same at a running release's pool (release:NAME), whose own rollouts go first: down to one "
        "request while an engine has others waiting.",
    )
    deadline_s: PositiveFloat = Field(3600.0, description="Longest time of one attempt.")
    attempts: PositiveInt = Field(5, description="Attempts of one request, those not counted that met a full server.")
    busy_s: PositiveFloat = Field(1800.0, description="Longest time that a request waits for a full server.")
    prompt_bytes: PositiveInt = Field(
        1 << 30, description="Bytes of prompts in memory at a time; requests wait for room."
    )


class JudgeSection(Section):
    """The model that decides whether an answer is right, where rules cannot."""

    place: Place | None = Field(
        None,
        description="URL of an OpenAI-compatible endpoint, or a Hugging Face folder; null judges nothing. `--judge`.",
    )
    model: str | None = Field(None, description="Name of the model at the endpoint. `--judge-model`.")
    api_key_variable: str = Field("GOLONGRL_JUDGE_API_KEY", description="Environment variable that holds its key.")
    temperature: NonNegativeFloat = Field(0.0, description="Of the first question.")
    retry_temperature: NonNegativeFloat = Field(
        0.7, description="Of the questions after a reply without a verdict, which would come again at 0."
    )
    max_tokens: PositiveInt = Field(_JUDGE_TOKENS, description="Longest reply.")
    attempts: PositiveInt = Field(3, description="Replies without a verdict before the sample counts as unjudged.")
    concurrency: PositiveInt = Field(32, description="Most questions in flight.")
    deadline_s: PositiveFloat = Field(300.0, description="Longest time of one attempt.")


class Suite(Section):
    """Which benchmarks are asked of which model, and how."""

    name: str = Field(description="Name of the suite.", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=63)
    benchmarks: tuple[str, ...] = Field(min_length=1, description="Names as `golongrl eval list` shows them.")
    mode: Mode = Field(
        "strict",
        description="Whose scoring: the benchmark's own publication (`official`), the released GoLongRL evaluation "
        "with its faults (`compat`), or ours (`strict`).",
    )
    data: Place | None = Field(None, description="Folder of the data, as `golongrl eval fetch` fills it. `--data`.")
    target: TargetSection = Field(default_factory=TargetSection)
    sampling: SamplingSection = Field(default_factory=SamplingSection)
    context: ContextSection = Field(default_factory=ContextSection)
    limits: LimitsSection = Field(default_factory=LimitsSection)
    judge: JudgeSection = Field(default_factory=JudgeSection)

    @field_validator("benchmarks")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in BENCHMARKS:
                near = difflib.get_close_matches(name, BENCHMARKS, n=1)
                known = f"did you mean {near[0]}?" if near else f"known: {', '.join(BENCHMARKS)}"
                raise ValueError(f"unknown benchmark {name}; {known}")
            if names.count(name) > 1:
                raise ValueError(f"{name} is named twice")
        return names


def packaged() -> list[str]:
    """Names of the suites shipped with the package."""
    return list(SUITES)


def load(name_or_path: str, overrides: Iterable[str] = ()) -> Suite:
    """A packaged suite, a single benchmark by its name, or a YAML file; with `a.b=c` overrides.

    Raises:
        SuiteError: there is no such suite, or a key or value of it is wrong.
        RecipeError: an override is not of the form key.path=value.
    """
    tree = read_mapping(source(name_or_path), f"suite {name_or_path}", SuiteError)
    for item in overrides:
        recipes.override(tree, item)
    try:
        return Suite.model_validate_json(json.dumps(tree, allow_nan=False))
    except ValidationError as error:
        raise SuiteError(f"suite {name_or_path}: {recipes.explain(error, Suite)}") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise SuiteError(f"suite {name_or_path}: {error}; quote texts that look like dates or numbers") from error


def dump(suite: Suite) -> str:
    """The suite as YAML that `load` reads back to an equal suite."""
    return yaml_text.dump(suite.model_dump(mode="json"))


def source(name_or_path: str) -> str:
    """The YAML text of a suite.

    Raises:
        SuiteError: there is none of this name.
    """
    if name_or_path in NAMES:
        members = SUITES.get(name_or_path, (name_or_path,))
        return yaml_text.dump({"name": name_or_path, "benchmarks": list(members)})
    return file_text(name_or_path, "suite", "file, packaged suite or benchmark", NAMES, SuiteError)
