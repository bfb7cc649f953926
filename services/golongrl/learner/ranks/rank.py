"""One rank of the learner: verl's `TrainingWorker` around its FSDP2 engine, as a Ray actor.

Invariants:
- what the driver sends is a shard of a batch whose advantages are already those of the whole batch;
- all ranks call the same methods in the same order with the same number of mini-batches (every method is collective,
  except those that wait for files);
- on CPU with one thread, the same shards from the same checkpoint give bit-identical weights.
"""

import json
import math
import os
import threading
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
import torch.distributed as dist
from tensordict import TensorDict
from torch import Tensor
from verl.single_controller.base.decorator import Dispatch, register
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_name, get_torch_device
from verl.utils.flops_counter import get_device_flops
from verl.workers.engine import BaseEngine, EngineRegistry
from verl.workers.engine_workers import TrainingWorker

from golongrl.learner.batch.samples import Shard
from golongrl.learner.checkpoints.reshard import load_resharded, saved_ranks
from golongrl.learner.checkpoints.snapshot import SnapshotWriter
from golongrl.learner.fsync import Written
from golongrl.learner.ranks.optimizer import recipe_settings
from golongrl.learner.ranks.policy_loss import policy_loss
from golongrl.learner.ranks.reduction import mean_of, note, over_all_ranks, reduce_over_ranks, reduced
from golongrl.learner.ranks.staging import WeightStaging
from golongrl.learner.ranks.tensors import (
    ROUTES,
    Correction,
    assemble,
    assemble_shared,
    correct,
    normalised,
    response_tokens,
    with_columns,
)
from golongrl.learner.ranks.ulysses_check import check_split
from golongrl.learner.ranks.verl_config import STRATEGY, worker_config
from golongrl.learner.ranks.verl_engine import register as register_engine
from golongrl.learner.recorded_routes import RoutesReader
from golongrl.learner.skipped_updates import METRIC as SKIPPED
from golongrl.learner.timing import timed
from golongrl.learner.umask import follow
from golongrl.learner.weights.export import Staged
from golongrl.recipe import Recipe
from golongrl.recipe.prefix_support import plain_reason

# A collective waits for the slowest rank, which may still be loading a 60 GB model; a dead rank is noticed by its
# closed connections long before.
_COLLECTIVE_TIMEOUT = timedelta(minutes=30)

# Ray's concurrency groups of the methods that wait, for files or for the rank's death, while the rank trains. They are
# not registered with verl, because Ray would then run them in the one thread that trains.
FILES, WATCH = "files", "watch"


@dataclass(frozen=True)
class RankInfo:
    """What a rank is, for the start-up checks and the log."""

    rank: int
    node: str
    device: str
    world_size: int
    data_parallel: int
    parameters: int  # of the whole model
    device_bytes: int | None  # memory of the device; None on CPU
    device_flops: (
        float | None
    )  # operations a second that it can do in bf16; None on CPU, and where verl does not know it
    tied: bool
    plain_reason: str | None  # why prompts are not computed once; None: they are


class LearnerRank(TrainingWorker):  # type: ignore[misc]  # verl carries no types for it
    """A rank as verl's worker group drives it. Methods are collective; they return the same thing on every rank."""

    def __init__(self, recipe: Recipe, model: str, routes: str | None = None) -> None:
        """
        Args:
            routes: the folder of recorded routes, where they are replayed.
        """
        follow()
        on_cpu = get_device_name() == "cpu"
        if on_cpu:
            _prepare_cpu()
        register_engine()
        self._plain_reason = plain_reason(
            json.loads(Path(model, "config.json").read_text("utf-8")), recipe, on_cpu=on_cpu
        )
        self.shares_prompts = self._plain_reason is None
        config = worker_config(recipe, Path(model), on_cpu=on_cpu, shared_prefix=self.shares_prompts)
        super().__init__(config)
        self._recipe = recipe
        self._routes = routes
        self._on_cpu = on_cpu
        self._reference: BaseEngine | None = None
        self._staging = WeightStaging(recipe)
        self._device = get_torch_device().current_device()
        if recipe.algorithm.kl_loss_coef > 0:
            frozen = worker_config(
                recipe, Path(model), on_cpu=on_cpu, shared_prefix=self.shares_prompts, forward_only=True
            )
            self._reference = EngineRegistry.new(
                model_type=frozen.model_type,
                backend=STRATEGY,
                model_config=self.model_config,
                engine_config=frozen.engine_config,
                optimizer_config=frozen.optimizer_config,
                checkpoint_config=frozen.checkpoint_config,
            )
        self.set_loss_fn(policy_loss(recipe))

    @register(dispatch_mode=Dispatch.ONE_TO_ALL, blocking=False)  # type: ignore[untyped-decorator]
    def start(self) -> RankInfo:
        """Load the model and build the optimizer."""
        if not self._on_cpu:
            # Ray runs methods in another thread than __init__ where an actor has concurrency groups.
            torch.cuda.set_device(self._device)
        torch.manual_seed(self._recipe.seed)
        self.reset()
        if self._reference is not None:
            self._reference.initialize()
        if self.shares_prompts:
            for engine in filter(None, (self.engine, self._reference)):
                engine.share_prompts()
        if self._routes is not None:
            self.engine.replay_routes(RoutesReader(Path(self._routes)))
        self._snapshots = SnapshotWriter(self.engine.checkpoint_manager)
        module = self.engine.module
        if self._recipe.learner.ulysses > 1:
            check_split(module, lambda s: self._log_probs(s, self._assemble(s))[0], self._recipe.learner.ulysses)
        device_bytes = None if self._on_cpu else torch.cuda.get_device_properties(0).total_memory
        peak = math.inf if self._on_cpu else get_device_flops(unit="B")
        return RankInfo(
            rank=dist.get_rank(),
            node=os.uname().nodename,
            device=get_device_name(),
            world_size=dist.get_world_size(),
            data_parallel=self.engine.get_data_parallel_size(),
            parameters=sum(parameter.numel() for parameter in module.parameters()),
            device_bytes=device_bytes,
            device_flops=peak if math.isfinite(peak) else None,
            tied=bool(self.model_config.hf_config.tie_word_embeddings),
            plain_reason=self._plain_reason,
        )

    @ray.method(concurrency_group=WATCH)  # type: ignore[untyped-decorator]
    def watch(self) -> None:
        """Blocks forever; the call fails as soon as the rank dies, so the caller notices immediately."""
        threading.Event().wait()

    @register(dispatch_mode=Dispatch.DP_COMPUTE, blocking=False)  # type: ignore[untyped-decorator]
    def update(self, shards: list[Shard]) -> dict[str, float]:
        """One optimizer step per mini-batch; the learning rate moves once, after the last.

        Args:
            shards: this rank's part of each mini-batch, in order.

        Returns:
            Metrics under verl's names, reduced over ranks, and `timing_s/*` of this rank.
        """
        clock: dict[str, float] = {}
        with timed(clock, "timing_s/assemble"):
            batches = [self._assemble(shard) for shard in shards]
        metrics: dict[str, list[tuple[float, float]]] = {}
        with timed(clock, "timing_s/old_log_prob"):
            # All mini-batches before the first update: the proximal policy is the one the step begins with.
            proximal = [self._proximal(shard, batch, metrics) for shard, batch in zip(shards, batches, strict=True)]
        if self._reference is not None:
            with timed(clock, "timing_s/ref"):
                for shard, batch in zip(shards, batches, strict=True):
                    with_columns(batch, shard, ref_log_prob=self._reference_log_probs(shard, batch))
        outputs = []
        with timed(clock, "timing_s/update_actor"):
            corrections = self._corrections(proximal, shards)
            for index, (shard, batch, old, correction) in enumerate(
                zip(shards, batches, proximal, corrections, strict=True)
            ):
                tokens = float(correction.mask.sum())
                for name, value in correction.metrics.items():
                    note(metrics, name, value, tokens)
                last = index == len(batches) - 1
                outputs.append(self._optimize(shard, batch, old, correction, last=last))
        measured = reduce_over_ranks(metrics, self.engine.get_data_parallel_group())
        if self._routes is not None:
            measured |= over_all_ranks(self.engine.routed()).shares()
        # verl's optimizer step leaves the weights as they are where the gradient is not finite.
        skipped = sum(not math.isfinite(output.get("actor/grad_norm", 0.0)) for output in outputs)
        return {**mean_of(outputs), **measured, **clock, SKIPPED: float(skipped)}

    @register(dispatch_mode=Dispatch.ONE_TO_ALL, blocking=False)  # type: ignore[untyped-decorator]
    def save(self, folder: str) -> None:
        """Copy this rank's part of a checkpoint; it is written to `folder` in verl's layout, in the background."""
        self._snapshots.start(Path(folder))

    @ray.method(concurrency_group=FILES)  # type: ignore[untyped-decorator]
    def written(self) -> Written:
        """Wait until this rank's part is durable; its files, and the seconds from `save` on."""
        return self._snapshots.written()

    @register(dispatch_mode=Dispatch.ONE_TO_ALL, blocking=False)  # type: ignore[untyped-decorator]
    def load(self, folder: str) -> None:
        """Read this rank's part of a checkpoint, whatever number of ranks wrote it. The optimizer's settings stay the
        recipe's."""
        with recipe_settings(self.engine.optimizer, self.engine.lr_scheduler):
            self._load(folder)

    def _load(self, folder: str) -> None:
        ranks = saved_ranks(Path(folder))
        if ranks == dist.get_world_size():
            self.engine.load_checkpoint(local_path=folder, del_local_after_load=False)
            return
        # verl's offload switches are made for its own loader: everything on the device while we write into it.
        self.engine.to(get_device_name())
        with torch.no_grad():
            load_resharded(Path(folder), ranks, self.engine.module, self.engine.optimizer, self.engine.lr_scheduler)
        learner = self._recipe.learner
        self.engine.to("cpu", model=learner.offload_params, optimizer=learner.offload_optimizer, grad=False)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL, blocking=False)  # type: ignore[untyped-decorator]
    def stage(self, folder: str | None, parent: str | None = None) -> None:
        """Copy this rank's share of the weights, and write it as safetensors shards into `folder` in the background.

        Without a folder the first rank writes all of them to where its sender reads them. Every rank gathers. With a
        `parent`, the folder of the version before, what changed since is written where that is less.
        """
        tied = bool(self.model_config.hf_config.tie_word_embeddings)
        parameters, _ = self.engine.get_per_tensor_param()
        # state_dict names the output head even when it is the embedding; transformers stores it once.
        stored = ((name, tensor) for name, tensor in parameters if not (tied and name == "lm_head.weight"))
        self._staging.begin(stored, folder, parent)

    @ray.method(concurrency_group=FILES)  # type: ignore[untyped-decorator]
    def staged(self) -> Staged:
        """Wait until this rank's share is written; its files, with sizes and sha256."""
        return self._staging.finished()

    @ray.method(concurrency_group=FILES)  # type: ignore[untyped-decorator]
    def hold(self, folder: str, version: int, lineage: str) -> str | None:
        """Send what was staged there from now on; the first rank answers where engines ask for it."""
        return self._staging.hold(folder, version, lineage)

    @register(dispatch_mode=Dispatch.ONE_TO_ALL, blocking=False)  # type: ignore[untyped-decorator]
    def close(self) -> None:
        """End the sender, and delete what it sends: it would be killed before it could."""
        self._staging.close()

    def _assemble(self, shard: Shard) -> TensorDict:
        temperature = self._recipe.rollout.temperature
        if self.shares_prompts:
            return assemble_shared(shard, temperature=temperature)
        return assemble(shard, temperature=temperature, pad_token_id=self.model_config.hf_config.pad_token_id or 0)

    def _proximal(self, shard: Shard, batch: TensorDict, metrics: dict[str, list[tuple[float, float]]]) -> Tensor:
        """The proximal policy's log-probs of the response tokens; the entropy, where it is known, goes to `metrics`."""
        if self._recipe.algorithm.proximal == "behaviour":
            return torch.from_numpy(shard.logprobs.copy())
        old, entropy = self._log_probs(shard, batch)
        if entropy is not None:
            weight = torch.from_numpy(np.repeat(shard.weights, np.diff(shard.offsets)))
            tokens = float(weight.sum())
            note(metrics, "actor/entropy_loss", float((entropy * weight).sum()) / max(tokens, 1.0), tokens)
        return old

    def _log_probs(self, shard: Shard, batch: TensorDict) -> tuple[Tensor, Tensor | None]:
        """The current policy's log-probs and entropies of the response tokens, flat; entropy unless the loss has it."""
        entropy = self._recipe.algorithm.entropy_coeff == 0
        output = self._infer(self.engine, batch, calculate_entropy=entropy)
        log_probs = response_tokens(output["log_probs"], shard).float().cpu()
        return log_probs, response_tokens(output["entropy"], shard).float().cpu() if entropy else None

    def _reference_log_probs(self, shard: Shard, batch: TensorDict) -> Tensor:
        """With the reference's own choice of experts: the recorded ones are the policy's."""
        assert self._reference is not None
        output = self._infer(self._reference, batch.exclude(ROUTES), calculate_entropy=False)
        return response_tokens(output["log_probs"], shard).float().cpu()

    def _infer(self, engine: BaseEngine, batch: TensorDict, **keys: Any) -> dict[str, Tensor]:
        """An engine's output for whole sequences, on every rank. verl's worker keeps it from all but the first rank of
        a Ulysses group, and each of them corrects and trains for itself."""
        data = self._call(batch, **keys, **self._engine_keys())
        with engine.eval_mode():
            output: dict[str, Tensor] = engine.infer_batch(data)["model_output"]
        return output

    def _corrections(self, proximal: list[Tensor], shards: list[Shard]) -> list[Correction]:
        """Of all mini-batches, before the first changes the policy: their weights have one mean."""
        algorithm = self._recipe.algorithm
        if algorithm.proximal == "behaviour":
            # Proximal and behaviour policy are the same by choice: every weight would be 1, and nothing rejected.
            algorithm = algorithm.model_copy(update={"rollout_is": None, "rollout_token_veto": None, "rollout_rs": {}})
        corrections = [correct(old, shard, algorithm) for old, shard in zip(proximal, shards, strict=True)]
        if algorithm.rollout_is is not None and algorithm.rollout_is_batch_normalize:
            return normalised(corrections, shards, algorithm.rollout_is)
        return corrections

    def _optimize(
        self, shard: Shard, batch: TensorDict, old: Tensor, correction: Correction, *, last: bool
    ) -> dict[str, float]:
        mask = correction.mask.long()
        columns = {"old_log_probs": old, "response_mask": mask, "loss_mask": mask}
        if correction.weights is not None:
            columns["rollout_is_weights"] = correction.weights
        with_columns(batch, shard, **columns)
        entropy = self._recipe.algorithm.entropy_coeff > 0
        output = self.train_batch(
            self._call(batch, calculate_entropy=entropy, update_lr_scheduler=last, global_token_num=None)
        )
        return reduced(tu.get(output, "metrics")) if output is not None else {}

    def _call(self, batch: TensorDict, **keys: Any) -> TensorDict:
        """A shallow copy with the call's own keys: verl writes its bookkeeping into what it is given."""
        data = batch.copy()
        tu.assign_non_tensor(data, **keys)
        return data

    def _engine_keys(self) -> dict[str, Any]:
        """What verl's worker adds before it calls an engine."""
        learner = self._recipe.learner
        return {
            "use_remove_padding": learner.remove_padding,
            "use_fused_kernels": learner.fused_linear_cross_entropy,
            "use_dynamic_bsz": True,
            "max_token_len_per_gpu": learner.max_tokens_per_rank,
        }


def _prepare_cpu() -> None:
    """What verl does not do for a CPU: a process group by gloo alone."""
    if not dist.is_initialized():
        dist.init_process_group(
            "gloo",
            rank=int(os.environ.get("RANK", "0")),
            world_size=int(os.environ.get("WORLD_SIZE", "1")),
            timeout=_COLLECTIVE_TIMEOUT,
        )
