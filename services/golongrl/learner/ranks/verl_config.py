"""The recipe in verl's words: the configurations of its FSDP engine, optimizer, checkpoints and loss.

One place, so that the recipe's settings (clip, precision, offload, packing) can be compared with verl's.
"""

from pathlib import Path

from verl.trainer.config import CheckpointConfig
from verl.workers.config import FSDPActorConfig, FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig, PolicyLossConfig
from verl.workers.config.engine import TrainingWorkerConfig

from golongrl.recipe import Recipe

# PyTorch's fully sharded data parallel, second version: the only one of verl's engines that runs on CPU as on GPU.
STRATEGY = "fsdp2"

_PRECISION = {"float32": "fp32", "bfloat16": "bf16"}


def worker_config(
    recipe: Recipe, model: Path, *, on_cpu: bool, shared_prefix: bool, forward_only: bool = False
) -> TrainingWorkerConfig:
    """The engine of one rank; `forward_only` is the frozen reference policy of the KL loss."""
    return TrainingWorkerConfig(
        model_type="language_model",
        model_config=_model(recipe, model, shared_prefix=shared_prefix),
        engine_config=_engine(recipe, on_cpu=on_cpu, forward_only=forward_only),
        optimizer_config=_optimizer(recipe),
        checkpoint_config=CheckpointConfig(),
    )


def loss_config(recipe: Recipe) -> FSDPActorConfig:
    """What verl's `ppo_loss` reads."""
    algorithm = recipe.algorithm
    options = algorithm.policy_loss_options
    smoothing = {name: options[name] for name in ("tau_pos", "tau_neg") if name in options}  # verl keeps sapo's apart
    return FSDPActorConfig(
        strategy=STRATEGY,
        rollout_n=recipe.rollout.n,
        use_dynamic_bsz=True,
        clip_ratio=algorithm.clip_ratio_low,
        clip_ratio_low=algorithm.clip_ratio_low,
        clip_ratio_high=algorithm.clip_ratio_high,
        clip_ratio_c=algorithm.clip_ratio_c,
        loss_agg_mode=algorithm.loss_agg_mode,
        # verl would take the widest response of each micro-batch, and the loss would depend on how they are cut.
        loss_scale_factor=recipe.rollout.max_response_tokens,
        entropy_coeff=algorithm.entropy_coeff,
        use_kl_loss=algorithm.kl_loss_coef > 0,
        kl_loss_coef=algorithm.kl_loss_coef,
        kl_loss_type=algorithm.kl_loss_type,
        policy_loss=PolicyLossConfig(
            loss_mode=algorithm.policy_loss,
            **{name: value for name, value in options.items() if name not in smoothing},
        ),
        **smoothing,
    )


def _model(recipe: Recipe, path: Path, *, shared_prefix: bool) -> HFModelConfig:
    learner = recipe.learner
    # Shared prompts bring an attention of their own, so the model loads without the package of another.
    attention = "sdpa" if shared_prefix else recipe.model.attn_implementation
    return HFModelConfig(
        path=str(path),
        trust_remote_code=recipe.model.trust_remote_code,
        override_config={"attn_implementation": attention},
        enable_gradient_checkpointing=learner.gradient_checkpointing,
        use_remove_padding=learner.remove_padding,
        use_fused_kernels=learner.fused_linear_cross_entropy,
        # The portable implementation: chunked, the same on CPU and GPU.
        fused_kernel_options={"impl_backend": "torch"},
    )


def _engine(recipe: Recipe, *, on_cpu: bool, forward_only: bool) -> FSDPEngineConfig:
    learner = recipe.learner
    precision = _PRECISION[recipe.model.dtype]
    return FSDPEngineConfig(
        strategy=STRATEGY,
        # verl's forward-only engine keeps parameters in pinned memory, which a machine without an accelerator has not.
        forward_only=forward_only and not on_cpu,
        param_offload=learner.offload_params,
        optimizer_offload=learner.offload_optimizer,
        ulysses_sequence_parallel_size=learner.ulysses,
        use_dynamic_bsz=True,
        max_token_len_per_gpu=learner.max_tokens_per_rank,
        infer_max_token_len_per_gpu=learner.max_tokens_per_rank,
        model_dtype="fp32",
        dtype=recipe.model.dtype,
        mixed_precision={"param_dtype": precision, "reduce_dtype": "fp32", "buffer_dtype": "fp32"},
        # Deferring the reduction to the last micro-batch would hold the whole model's gradients in float32 on every
        # rank meanwhile: 120 GB for 30B parameters.
        use_no_sync_for_gradient_accumulation=False,
        use_torch_compile=not on_cpu,
        # The full logits of a long micro-batch do not fit twice.
        entropy_from_logits_with_chunking=not on_cpu,
        seed=recipe.seed,
    )


def _optimizer(recipe: Recipe) -> FSDPOptimizerConfig:
    learner = recipe.learner
    return FSDPOptimizerConfig(
        lr=learner.lr,
        betas=learner.betas,
        weight_decay=learner.weight_decay,
        clip_grad=learner.grad_clip,
        lr_warmup_steps=learner.lr_warmup_steps,
        # Only a ratio or a cosine would need it; warm-up is in steps and the rate is constant afterwards.
        total_training_steps=learner.steps or -1,
        lr_scheduler_type="constant",
    )
