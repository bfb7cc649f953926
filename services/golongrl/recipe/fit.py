"""Where two numbers of a recipe, or one of it and one of the model's config.json, cannot go together. Pure.

Each function returns one line a fault, which names the keys, their values and the nearest value that works.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from golongrl.recipe.fields import LEAST_FLOAT, MOST_FLOAT
from golongrl.recipe.functions import COV_BOUNDS, POLICY_LOSSES, TOKEN_SHARES
from golongrl.recipe.prefix_support import plain_reason
from golongrl.routes.model import ARCHITECTURES, routing_of

if TYPE_CHECKING:
    from golongrl.recipe.models import Recipe

# The corpus that comes with Python.
BUILTIN_CORPUS = "builtin:python-reference"
# Redis keeps a run's order (4 bytes a row and epoch) and each group as one value, of at most 512 MB.
MOST_BYTES = 512 << 20
MOST_DEALT = MOST_BYTES // 4
# The learner holds a step's responses as objects: so many take gigabytes before their tokens are counted. The paper's
# steps have 2,048.
MOST_RESPONSES = 1 << 20

_ID_BYTES = 4
_ID_AND_LOGPROB_BYTES = 8


def recipe_faults(recipe: "Recipe") -> Iterator[str]:
    """What the recipe alone shows."""
    yield from _lengths(recipe)
    yield from _groups(recipe)
    yield from _sizes(recipe)
    yield from _algorithm(recipe)
    yield from _loss_options(recipe)
    yield from _task_weights(recipe)
    yield from _validation(recipe)
    if recipe.learner.routing_replay and recipe.learner.weights != "disk":
        yield (
            f"learner.routing_replay: routes reach the learner through the weight store, which learner.weights "
            f"{recipe.learner.weights} does without; learner.weights disk works, or learner.routing_replay false"
        )


def _lengths(recipe: "Recipe") -> Iterator[str]:
    data, rollout, learner = recipe.data, recipe.rollout, recipe.learner
    longest = data.max_prompt_tokens + rollout.max_response_tokens
    if recipe.model.context_length < longest:
        yield (
            f"model.context_length {recipe.model.context_length} is below data.max_prompt_tokens + "
            f"rollout.max_response_tokens = {longest}"
        )
    room = learner.max_tokens_per_rank * learner.ulysses
    if longest > room:
        yield (
            f"learner.max_tokens_per_rank {learner.max_tokens_per_rank} x learner.ulysses {learner.ulysses} = {room} "
            f"is below the longest sequence, {longest} (data.max_prompt_tokens + rollout.max_response_tokens); at "
            f"least {-(-longest // learner.ulysses)} works"
        )
    if data.corpus is not None and data.corpus.startswith("builtin:") and data.corpus != BUILTIN_CORPUS:
        yield f"data.corpus {data.corpus}: unknown; the builtin corpus is {BUILTIN_CORPUS}"
    if data.corpus is not None and data.context_tokens > data.max_prompt_tokens and data.overlong != "truncate_left":
        yield (
            f"data.context_tokens {data.context_tokens} exceeds data.max_prompt_tokens {data.max_prompt_tokens}: every "
            f"built prompt would be too long; at most {data.max_prompt_tokens} works"
        )
    if recipe.algorithm.overlong_buffer > rollout.max_response_tokens:
        yield (
            f"algorithm.overlong_buffer {recipe.algorithm.overlong_buffer} exceeds rollout.max_response_tokens; at "
            f"most {rollout.max_response_tokens} works"
        )


def _groups(recipe: "Recipe") -> Iterator[str]:
    rollout, learner, queue = recipe.rollout, recipe.learner, recipe.queue
    if rollout.min_scored > rollout.n:
        yield f"rollout.min_scored {rollout.min_scored} exceeds rollout.n {rollout.n}; at most {rollout.n} works"
    if rollout.group_filter and rollout.n == 1:
        yield "rollout.n 1: rollout.group_filter rejects every group of one response; at least 2 works"
    mini = learner.mini_batch_groups
    if mini is not None and queue.groups_per_step % mini:
        nearest = min(_divisors(queue.groups_per_step), key=lambda divisor: abs(divisor - mini))
        yield (
            f"learner.mini_batch_groups {mini} does not divide queue.groups_per_step {queue.groups_per_step}; "
            f"{nearest} works"
        )
    if learner.ranks % learner.ulysses:
        nearest = min(_divisors(learner.ranks), key=lambda divisor: abs(divisor - learner.ulysses))
        yield f"learner.ulysses {learner.ulysses} does not divide learner.ranks {learner.ranks}; {nearest} works"
    responses, replicas = (mini or queue.groups_per_step) * rollout.n, learner.ranks // learner.ulysses
    if responses < replicas:
        yield (
            f"a mini-batch has {responses} responses (learner.mini_batch_groups or queue.groups_per_step, x rollout.n),"
            f" fewer than the {replicas} ranks that share it (learner.ranks / learner.ulysses)"
        )
    if recipe.reward.deadline_s >= queue.stall_s:
        yield (
            f"reward.deadline_s {recipe.reward.deadline_s:g} is not below queue.stall_s {queue.stall_s:g}: a lease "
            "would be taken back while its responses are scored"
        )


def largest_group_bytes(recipe: "Recipe") -> int:
    """What the longest prompt with its longest responses occupies in the queue, uncompressed."""
    responses = recipe.rollout.n * recipe.rollout.max_response_tokens
    return _ID_BYTES * recipe.data.max_prompt_tokens + _ID_AND_LOGPROB_BYTES * responses


def _sizes(recipe: "Recipe") -> Iterator[str]:
    data, rollout, queue = recipe.data, recipe.rollout, recipe.queue
    group = largest_group_bytes(recipe)
    if group > MOST_BYTES:
        yield (
            f"rollout.n {rollout.n} x rollout.max_response_tokens {rollout.max_response_tokens} and "
            f"data.max_prompt_tokens {data.max_prompt_tokens} make groups of up to {group} bytes; Redis takes at most "
            f"{MOST_BYTES} as one value"
        )
    elif group > queue.max_bytes:
        yield (
            f"queue.max_bytes {queue.max_bytes} is below one group of the largest size, {group} bytes (rollout.n "
            f"{rollout.n} x rollout.max_response_tokens {rollout.max_response_tokens}, data.max_prompt_tokens "
            f"{data.max_prompt_tokens}); at least {group} works"
        )
    if (responses := queue.groups_per_step * rollout.n) > MOST_RESPONSES:
        yield (
            f"queue.groups_per_step {queue.groups_per_step} x rollout.n {rollout.n} = {responses} responses a step; at "
            f"most {MOST_RESPONSES} work"
        )
    if data.corpus is not None and data.prompts * data.epochs > MOST_DEALT:
        yield (
            f"data.prompts {data.prompts} x data.epochs {data.epochs} = {data.prompts * data.epochs} groups; a run "
            f"deals at most {MOST_DEALT}"
        )


def rows_fault(recipe: "Recipe", rows: int) -> str | None:
    """What a data set of so many rows shows."""
    epochs = recipe.data.epochs
    if rows * epochs <= MOST_DEALT:
        return None
    return f"{rows} rows x data.epochs {epochs} = {rows * epochs} groups; a run deals at most {MOST_DEALT}"


def _task_weights(recipe: "Recipe") -> Iterator[str]:
    weights = recipe.data.task_weights
    if weights is None:
        return
    if not weights:
        yield "data.task_weights has no task type; null leaves the shares of the data"
    for task in weights:
        if task not in recipe.data.tasks:
            yield f"data.task_weights.{task}: {task} is not in data.tasks ({', '.join(recipe.data.tasks)})"


def run_faults(recipe: "Recipe") -> Iterator[str]:
    """What no training run could work with, though the recipe's data can be built."""
    data, groups = recipe.data, recipe.queue.groups_per_step
    if data.corpus is not None and data.prompts * data.epochs < groups:
        yield (
            f"data.prompts {data.prompts} x data.epochs {data.epochs} is below queue.groups_per_step {groups}: no "
            f"batch would ever be full; at least {-(-groups // data.epochs)} prompts work"
        )


def steps_warning(recipe: "Recipe", read: int | None = None) -> str | None:
    """One line when the rows, those that are built or so many that were `read`, are used up before `learner.steps`;
    None when they suffice or are not known.
    """
    data, groups, steps = recipe.data, recipe.queue.groups_per_step, recipe.learner.steps
    if (data.corpus is None) is (read is None) or steps is None:
        return None
    rows, told = (data.prompts, f"data.prompts {data.prompts}") if read is None else (read, f"{read} rows")
    most = -(-rows * data.epochs // groups)
    if most >= steps:
        return None
    return (
        f"{told} x data.epochs {data.epochs} at queue.groups_per_step {groups} are at most {most} "
        f"steps; learner.steps is {steps}, and the run ends when all rows were used"
    )


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, min(number, 1 << 16) + 1) if number % divisor == 0]


def _algorithm(recipe: "Recipe") -> Iterator[str]:
    algorithm = recipe.algorithm
    low, high = algorithm.rollout_is_clip
    if low >= high:
        yield "algorithm.rollout_is_clip must be [low, high] with low < high"
    elif algorithm.rollout_is is not None and not low <= 1 <= high:
        yield (
            f"algorithm.rollout_is_clip [{low:g}, {high:g}] leaves out 1, the weight of a token that engine and "
            "learner see alike; low <= 1 <= high works"
        )
    for mode, bound in algorithm.rollout_rs.items():
        if isinstance(bound, tuple) and not mode.endswith("k1"):
            yield f"algorithm.rollout_rs.{mode} takes one upper bound, not {list(bound)}"
        elif isinstance(bound, tuple) and bound[0] >= bound[1]:
            yield f"algorithm.rollout_rs.{mode} must be [low, high] with low < high"
        elif mode.endswith("k1") and not (bound[0] <= 1 <= bound[1] if isinstance(bound, tuple) else bound > 1):
            given = list(bound) if isinstance(bound, tuple) else f"{bound:g}"
            yield f"algorithm.rollout_rs.{mode} {given} rejects what engine and learner see alike, whose ratio is 1"
    learner = recipe.learner
    if learner.lr * learner.weight_decay >= 1:
        yield (
            f"learner.lr {learner.lr:g} x learner.weight_decay {learner.weight_decay:g} is at least 1: each step would "
            f"take more than the weights themselves off them; a weight_decay below {1 / learner.lr:g} works"
        )
    if algorithm.entropy_low > algorithm.entropy_high:
        yield (
            f"algorithm.entropy_low {algorithm.entropy_low:g} exceeds algorithm.entropy_high "
            f"{algorithm.entropy_high:g}; at most {algorithm.entropy_high:g} works"
        )


def _loss_options(recipe: "Recipe") -> Iterator[str]:
    options, loss = recipe.algorithm.policy_loss_options, recipe.algorithm.policy_loss
    known = POLICY_LOSSES.get(loss, frozenset())
    for name, value in sorted(options.items()):
        if name not in known:
            takes = f"takes {', '.join(sorted(known))}" if known else "takes none"
            yield f"algorithm.policy_loss_options.{name}: the loss {loss} {takes}"
        elif name not in COV_BOUNDS and not LEAST_FLOAT <= value <= MOST_FLOAT:
            yield f"algorithm.policy_loss_options.{name} {value:g}: it must be above 0, and at most {MOST_FLOAT:g}"
        elif name in TOKEN_SHARES and value > 1:
            yield f"algorithm.policy_loss_options.{name} {value:g} is a share of the tokens; at most 1 works"
    low, high = (options.get(name, default) for name, default in COV_BOUNDS.items())
    if low >= high:
        yield (
            f"algorithm.policy_loss_options: clip_cov_lb {low:g} is not below clip_cov_ub {high:g}: no token would "
            "ever be chosen"
        )
    if loss == "dro" and "dro_beta" not in options:
        yield "algorithm.policy_loss dro needs algorithm.policy_loss_options.dro_beta"


def _validation(recipe: "Recipe") -> Iterator[str]:
    data, learner = recipe.data, recipe.learner
    suite = data.validation_suite is not None
    if suite != (data.validation_suite_data is not None):
        yield "data.validation_suite and data.validation_suite_data: give both or neither"
    if data.validation_suite_samples is not None and not suite:
        yield "data.validation_suite_samples is set without data.validation_suite"
    if suite and not (learner.test_freq or learner.val_before_train):
        yield "data.validation_suite is set, and nothing validates on it: set learner.test_freq"
    held_out = suite or data.validation is not None or (data.corpus is not None and data.validation_prompts > 0)
    if (learner.test_freq or learner.val_before_train) and not held_out:
        yield (
            "learner.test_freq or learner.val_before_train is set without data to validate on: set data.validation, "
            "data.validation_suite, or data.validation_prompts with a corpus"
        )


def model_faults(recipe: "Recipe", config: Mapping[str, Any], vocabulary: int | None = None) -> Iterator[str]:
    """What the recipe and a model's config.json show; `vocabulary` is the number of ids its tokenizer may give."""
    text = config.get("text_config") if isinstance(config.get("text_config"), Mapping) else None
    sizes = {**config, **(text or {})}
    yield from _positions(recipe, sizes)
    rows = _whole(sizes, "vocab_size")
    if rows is not None and vocabulary is not None and vocabulary > rows:
        yield (
            f"config.json: vocab_size {rows} is below the tokenizer's {vocabulary} ids (tokenizer.json): the model has "
            "no embedding for some of them"
        )
    yield from _ulysses(recipe, sizes)
    attention = recipe.model.attn_implementation
    if attention.startswith("flash") and recipe.model.dtype == "float32":
        yield (
            f"model.attn_implementation {attention} computes in bfloat16 alone, and model.dtype is float32; sdpa "
            "works, or model.dtype bfloat16"
        )
    if recipe.learner.routing_replay and routing_of(sizes) is None:
        yield (
            f"learner.routing_replay: a model of type {sizes.get('model_type')} has no experts whose routes can be "
            f"replayed ({', '.join(ARCHITECTURES)} has); false works"
        )


def _positions(recipe: "Recipe", sizes: Mapping[str, Any]) -> Iterator[str]:
    positions = longest_context(sizes)
    if positions is not None and recipe.model.context_length > positions:
        yield (
            f"model.context_length {recipe.model.context_length} exceeds the model's {positions} positions "
            f"(config.json: max_position_embeddings); at most {positions} works"
        )


def longest_context(sizes: Mapping[str, Any]) -> int | None:
    """Tokens that a model was made for, its scaling of positions included; None where config.json does not say."""
    positions = _whole(sizes, "max_position_embeddings")
    scaling = sizes.get("rope_scaling") or sizes.get("rope_parameters")
    factor = scaling.get("factor") if isinstance(scaling, Mapping) else None
    if positions is not None and isinstance(factor, int | float) and factor >= 1 and isinstance(scaling, Mapping):
        original = scaling.get("original_max_position_embeddings")
        positions = max(positions, round(factor * (original if isinstance(original, int) else positions)))
    return positions


def _ulysses(recipe: "Recipe", sizes: Mapping[str, Any]) -> Iterator[str]:
    degree = recipe.learner.ulysses
    if degree == 1:
        return
    heads = _whole(sizes, "num_attention_heads")
    key_heads = _whole(sizes, "num_key_value_heads") or heads
    if heads is not None and heads % degree:
        yield f"learner.ulysses {degree} does not divide the model's {heads} attention heads"
    if key_heads is not None and key_heads % degree and degree % key_heads:
        yield f"learner.ulysses {degree} does not go with the model's {key_heads} key heads"
    # Float32 is what a CPU trains in; the rank itself looks at its device.
    if plain_reason(sizes, recipe, on_cpu=recipe.model.dtype == "float32") is None:
        return  # the attention for shared prompts splits packed rows itself
    if not recipe.learner.remove_padding:
        yield f"learner.ulysses {degree} needs learner.remove_padding: true"
    if not recipe.model.attn_implementation.startswith("flash"):
        yield (
            f"learner.ulysses {degree}: sequences are split inside flash attention alone; with "
            f"model.attn_implementation {recipe.model.attn_implementation} the degree would do nothing"
        )


def _whole(sizes: Mapping[str, Any], key: str) -> int | None:
    value = sizes.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
