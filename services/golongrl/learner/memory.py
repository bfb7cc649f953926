"""How much memory a rank needs: arithmetic over the recipe and the model's config.json, no torch, no GPU.

The estimate is of the peak of an update: sharded state, the largest unsharded layers, kept activations, logits. It is
meant to be high rather than low (allocator fragmentation is counted), and to say which term to lower.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from golongrl.errors import InputError
from golongrl.recipe import Recipe
from golongrl.recipe.fit import model_faults
from golongrl.recipe.prefix_support import plain_reason
from golongrl.routes.model import experts_of, routing_of

GIB = 1 << 30

# Bytes of a parameter, of its gradient, and of its two moments in AdamW, in float32.
_MASTER, _GRADIENT, _MOMENTS = 4, 4, 8
# CUDA context, NCCL buffers, cuBLAS workspaces: measured in the low gigabytes on every recent GPU.
_RUNTIME_BYTES = 2 * GIB
# What PyTorch's caching allocator loses to fragments under varying sequence lengths.
_FRAGMENTATION = 1.1
# Values a decoder layer keeps for its backward pass, per token and unit of hidden size, when nothing is recomputed:
# norms, q, k, v, attention output, residuals; the MLP's are counted by its own width.
_KEPT_PER_HIDDEN = 12
_KEPT_PER_INTERMEDIATE = 3
# verl's portable fused cross-entropy works on this many tokens at a time.
_FUSED_CHUNK = 512
# Further memory of a rank's process on the host: libraries, CUDA's and NCCL's own, its part of a batch.
_PROCESS_BYTES = 5 * GIB
# What a GPU node has.
_RANKS_OF_A_HOST = 8
# Modules that transformers takes flash attention from, and the one that fetches either from the hub in their place.
_KERNELS = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}
_HUB_KERNELS = "kernels"
# Copies of a group's routes while they are read: the file, and its content before and after it is put in order.
_ROUTES_COPIES = 3
# FSDP2 has the layer in use and the next one, prefetched, unsharded.
_UNSHARDED_LAYERS = 2


@dataclass(frozen=True)
class Shape:
    """A decoder-only model in numbers, from its config.json."""

    hidden: int
    layers: int
    vocabulary: int
    attention: int  # parameters of a layer's attention
    mlp: int  # parameters of a layer's MLP; all experts of a mixture
    intermediate: int  # MLP width a token passes through; of all its experts
    heads: int
    kv_heads: int
    head: int  # size of a head
    tied: bool

    @property
    def layer(self) -> int:
        """Parameters of a layer."""
        return self.attention + self.mlp + 4 * self.hidden

    @property
    def embedding(self) -> int:
        """Parameters of the embedding (and as many of the head, unless tied)."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        return self.layers * self.layer + self.embedding * (1 if self.tied else 2) + self.hidden


@dataclass(frozen=True)
class Estimate:
    """Bytes on one rank by what holds them, and CPU memory and disk of its host."""

    parameters: int
    ranks: int
    terms: dict[str, int]
    host: int
    """CPU memory that offloading takes instead."""
    snapshot: int
    """CPU memory of the copy from which a checkpoint is written while training continues."""
    weights: int
    """CPU memory of a rank's share of the weights that are being published."""
    whole: int
    """CPU memory of all of them, which the first rank copies to broadcast them; 0 by disk."""
    routes: int
    """CPU memory of a rank's recorded routes, while a micro-batch's are read."""
    loading: int
    """CPU memory of the model as it is loaded, in float32."""
    loaded_by_all: bool
    """Every rank loads it (verl, of a model with tied embeddings), not the first alone."""

    @property
    def total(self) -> int:
        """Peak bytes on the device, runtime and fragmentation included."""
        return int(sum(self.terms.values()) * _FRAGMENTATION) + _RUNTIME_BYTES

    @property
    def files(self) -> int:
        """Bytes of disk where the first rank hands weights to its sender: one version, and another on its way."""
        return 2 * self.whole

    def host_total(self, ranks: int) -> int:
        """Peak bytes of CPU memory on the first rank's host, with `ranks` there, on GPUs: while the model is loaded, or
        while a checkpoint and a version of the weights are written. The page cache of files is not counted."""
        start = self.loading * (ranks if self.loaded_by_all else 1)
        writing = ranks * (self.host + self.snapshot + self.routes) + max(ranks * self.weights, self.whole)
        return ranks * _PROCESS_BYTES + max(start, writing)

    def lines(self) -> list[str]:
        """For people: one line a term, largest first, then the sum."""
        rows = sorted(self.terms.items(), key=lambda item: -item[1])
        here = min(self.ranks, _RANKS_OF_A_HOST)
        return [
            f"{self.parameters / 1e9:.2f} B parameters over {self.ranks} ranks; on each:",
            *(f"  {size / GIB:8.2f} GiB  {name}" for name, size in rows),
            f"  {self.total / GIB:8.2f} GiB  in all, with the runtime and fragmentation",
            *([f"  {self.host / GIB:8.2f} GiB  of CPU memory, offloaded"] if self.host else []),
            *([f"  {self.routes / GIB:8.2f} GiB  of CPU memory for recorded routes"] if self.routes else []),
            f"  {self.snapshot / GIB:8.2f} GiB  of CPU memory while a checkpoint is being written",
            f"a host of {here} {'ranks' if here > 1 else 'rank'} needs:",
            f"  {self.host_total(here) / GIB:8.2f} GiB  of CPU memory: loading, or writing weights and a checkpoint",
            *([f"  {self.files / GIB:8.2f} GiB  of disk under TMPDIR, for weights to broadcast"] if self.files else []),
        ]


class MemoryPlanError(InputError):
    """The recipe does not fit the device; the message has the numbers."""


def shape(config: Mapping[str, Any]) -> Shape:
    """Sizes from a config.json of a Llama-like model, dense or a mixture of experts.

    Raises:
        InputError: a needed key is missing.
    """
    try:
        hidden, layers, heads = (
            int(config["hidden_size"]),
            int(config["num_hidden_layers"]),
            int(config["num_attention_heads"]),
        )
        vocabulary = int(config["vocab_size"])
        kv_heads = int(config.get("num_key_value_heads") or heads)
        head = int(config.get("head_dim") or hidden // heads)
        experts = int(experts_of(config) or 0)
        width = int(
            config["moe_intermediate_size"]
            if experts and "moe_intermediate_size" in config
            else config["intermediate_size"]
        )
    except KeyError as error:
        raise InputError(
            f"model config.json: no {error.args[0]}; the memory of this model cannot be estimated"
        ) from error
    active = int(config.get("num_experts_per_tok") or 1) if experts else 1
    return Shape(
        hidden=hidden,
        layers=layers,
        vocabulary=vocabulary,
        attention=2 * hidden * head * (heads + kv_heads),
        mlp=3 * hidden * width * max(experts, 1) + (hidden * experts),
        intermediate=width * active,
        heads=heads,
        kv_heads=kv_heads,
        head=head,
        tied=bool(config.get("tie_word_embeddings", False)),
    )


def estimate(recipe: Recipe, model_config: Mapping[str, Any], gpus: int | None = None) -> Estimate:
    """Peak memory of one rank.

    Args:
        model_config: the model's config.json.
        gpus: ranks; the recipe's own number if not given.
    """
    learner, model = recipe.learner, shape(model_config)
    ranks, compute = gpus or learner.ranks, _compute_bytes(recipe)
    sharded = -(-model.parameters // ranks)
    parameters, optimizer = _MASTER * sharded, _MOMENTS * sharded
    terms = {
        "gradients (float32)": _GRADIENT * sharded,
        **_pass_terms(recipe, model),
        # Offloaded ones as well: verl loads what it offloaded for the update itself, and then both are there.
        "parameters (float32)": parameters,
        "optimizer state (AdamW, float32)": optimizer,
        "reference policy": compute * sharded if recipe.algorithm.kl_loss_coef else 0,
    }
    routing = routing_of(model_config) if learner.routing_replay else None
    if routing is not None:
        # The experts of every layer, and in a layer the softmax over all of them, its gradient, and their numbers.
        a_token = routing.token_bytes + 2 * 4 * routing.experts + 8 * routing.top_k
        terms["recorded routes"] = learner.max_tokens_per_rank * a_token
    broadcast = learner.weights == "broadcast"
    return Estimate(
        model.parameters,
        ranks,
        {name: size for name, size in terms.items() if size},
        host=(parameters if learner.offload_params else 0) + (optimizer if learner.offload_optimizer else 0),
        snapshot=parameters + optimizer,
        routes=0 if routing is None else _routes(recipe, model_config) * routing.token_bytes,
        weights=0 if broadcast else compute * sharded,
        whole=compute * model.parameters if broadcast else 0,
        loading=_MASTER * model.parameters,
        loaded_by_all=model.tied,
    )


def _compute_bytes(recipe: Recipe) -> int:
    """Of a number in the precision that a pass computes with."""
    return 4 if recipe.model.dtype == "float32" else 2


def _pass_terms(recipe: Recipe, model: Shape) -> dict[str, int]:
    """What a forward and a backward pass over `learner.max_tokens_per_rank` tokens hold at their peak, in bytes."""
    learner, compute, tokens = recipe.learner, _compute_bytes(recipe), recipe.learner.max_tokens_per_rank
    fused = learner.fused_linear_cross_entropy
    # What the root holds whole during a pass: an untied head too where the loss reads it (ranks.verl_engine).
    ends = 2 if fused and not model.tied else 1
    of_layer = _KEPT_PER_HIDDEN * model.hidden + _KEPT_PER_INTERMEDIATE * model.intermediate
    # With checkpointing, the inputs of all layers and what the one that is computed again keeps.
    kept = model.layers * model.hidden + of_layer if learner.gradient_checkpointing else model.layers * of_layer
    return {
        "layers unsharded for compute": compute * (_UNSHARDED_LAYERS * model.layer + ends * model.embedding),
        "activations kept for the backward pass": compute * tokens * kept,
        # Logits, their log-softmax and their gradient, in float32.
        "logits": 3 * 4 * model.vocabulary * (min(tokens, _FUSED_CHUNK) if fused else tokens),
    }


def _routes(recipe: Recipe, model_config: Mapping[str, Any]) -> int:
    """Tokens whose routes a rank holds at most: whole groups, of which a micro-batch may have a response of each."""
    group = recipe.data.max_prompt_tokens + recipe.rollout.n * recipe.rollout.max_response_tokens
    row = recipe.learner.max_tokens_per_rank * recipe.learner.ulysses
    if plain_reason(model_config, recipe, on_cpu=False) is not None:
        row *= recipe.rollout.n
    return _ROUTES_COPIES * max(group, row)


def check_layout(recipe: Recipe, model_config: Mapping[str, Any]) -> None:
    """What the recipe and the model's config.json show before anything is started.

    Raises:
        InputError: naming the keys and what works.
    """
    if faults := list(model_faults(recipe, model_config)):
        raise InputError("; ".join(faults))


def check_kernel(recipe: Recipe, model_config: Mapping[str, Any], installed: Callable[[str], bool]) -> None:
    """Refuse at once what would fail in every rank, after minutes of starting them.

    Args:
        installed: whether a module of that name is.

    Raises:
        InputError: the recipe's attention kernel is not installed.
    """
    if plain_reason(model_config, recipe, on_cpu=False) is None:
        return  # shared prompts bring an attention of their own
    attention = recipe.model.attn_implementation
    module = _KERNELS.get(attention)
    if module is not None and not installed(module) and not installed(_HUB_KERNELS):
        raise InputError(
            f"model.attn_implementation {attention}: there is no {module} here; install a wheel of it that fits torch "
            f"(images/Dockerfile: FLASH_ATTN_WHEEL), or without a GPU use sdpa and learner.ulysses 1"
        )


def check_device(recipe: Recipe, model_config: Mapping[str, Any], *, device: str, device_bytes: int | None) -> None:
    """Refuse with numbers rather than running out of memory an hour later.

    Args:
        device: "cpu", or the accelerator's name.
        device_bytes: its memory; None where there is no limit of its own (CPU).

    Raises:
        InputError: the device lacks the attention kernel.
        MemoryPlanError: the estimate exceeds the device's memory.
    """
    attention = recipe.model.attn_implementation
    if device == "cpu" and attention.startswith("flash"):
        raise InputError(f"model.attn_implementation {attention} needs a GPU; on CPU use sdpa")
    need = estimate(recipe, model_config)
    if device_bytes is not None and need.total > device_bytes:
        worst = max(need.terms.items(), key=lambda item: item[1])
        raise MemoryPlanError(
            f"a rank needs about {need.total / GIB:.1f} GiB, the device has {device_bytes / GIB:.1f}; the largest part "
            f"is {worst[0]}, {worst[1] / GIB:.1f} GiB (more learner.ranks or learner.ulysses, or fewer "
            f"learner.max_tokens_per_rank, lower it)"
        )
