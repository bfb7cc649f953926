"""verl's FSDP2 engine as this learner runs it: registered in verl's registry for the device at hand, CPU included.

Three things differ.
- verl shards an untied output head as a unit of its own, whose parameters are whole only while the head's own forward
  runs; its fused cross-entropy reads the head's weight without running it, and fails on the shards (every untied model:
  Qwen3-30B-A3B and the like). Here the head then belongs to the root, whole during its forward.
- A batch that carries SHARED_PROMPTS is computed with every prompt once: micro-batches are cut by group, a packed row
  holds a prompt and segments for its responses (golongrl.learner.batch.shared_prefix), and only the segments' hidden
  states reach the output head. Every pass is made so: proximal log-probs, update, reference.
- A batch that carries ROUTES is computed with the experts recorded there (golongrl.learner.ranks.routing_replay).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import MethodType
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from tensordict import TensorDict
from torch import Tensor
from verl.utils import tensordict_utils as tu
from verl.utils.device import get_device_id, get_device_name, get_vendor
from verl.utils.experimental.torch_functional import FusedLinearForPPO
from verl.utils.torch_functional import logprobs_from_logits
from verl.utils.ulysses import gather_outputs_and_unpad, get_ulysses_sequence_parallel_rank
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead
from verl.workers.engine.utils import detach_tree, postprocess_batch_func

from golongrl.learner.batch.parts import at_least, micro_batches, parts_of
from golongrl.learner.batch.routes import RowRoutes, plain_row, shared_row
from golongrl.learner.batch.shared_prefix import packed_row
from golongrl.learner.flops import pairs_per_token
from golongrl.learner.memory import shape
from golongrl.learner.ranks import prefix_attention, routing_replay
from golongrl.learner.ranks.routing_replay import Replay, ReplayCounts
from golongrl.learner.ranks.tensors import ROUTES, ROW, SHARED_PROMPTS
from golongrl.learner.ranks.verl_config import STRATEGY
from golongrl.learner.recorded_routes import RoutesReader


class VerlEngine(FSDPEngineWithLMHead):  # type: ignore[misc]  # verl carries no types for it
    """FSDP2 with an output head that the fused cross-entropy can read, prompts computed once, and routing replay."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        # Of the passes that train: all token-layers; by layer, which fills them in, the replayed and the changed ones.
        self._routed: list[tuple[int, Tensor, Tensor]] = []
        self._reader: RoutesReader | None = None

    def _build_module(self) -> torch.nn.Module:
        module: torch.nn.Module = super()._build_module()
        prefix_attention.register()
        plain = module.forward

        def forward(
            model: Any, *arguments: Any, shared_prefix: Any = None, replay: Replay | None = None, **named: Any
        ) -> Any:
            with routing_replay.handed_down(model.model, replay):
                if shared_prefix is None:
                    return plain(*arguments, **named)
                return _score_segments(model, shared_prefix=shared_prefix, **named)

        # Of the instance: FSDP and verl both replace the class's.
        module.forward = MethodType(forward, module)
        return module

    def _build_fsdp_module(self, module: torch.nn.Module) -> Any:
        if not self.model_config.use_fused_kernels:
            return super()._build_fsdp_module(module)
        with _as_if_tied(module):
            return super()._build_fsdp_module(module)

    def share_prompts(self) -> None:
        """From now on batches come with SHARED_PROMPTS, and the model's attention is the one for them."""
        self.module.set_attn_implementation(prefix_attention.NAME)

    def replay_routes(self, reader: RoutesReader) -> None:
        """From now on batches may come with ROUTES, which `reader` reads.

        Raises:
            GolongrlError: the model's routers are not known.
        """
        routing_replay.install(self.module.model)
        self._reader = reader

    def routed(self) -> ReplayCounts:
        """Token-layers of this rank's passes that trained, since the last call."""
        counts = ReplayCounts(
            sum(every for every, _, _ in self._routed),
            sum(int(replayed.sum()) for _, replayed, _ in self._routed),
            sum(int(changed.sum()) for _, _, changed in self._routed),
        )
        self._routed = []
        return counts

    def forward_backward_batch(
        self, data: TensorDict, loss_function: Callable[..., Any] | None, forward_only: bool = False
    ) -> Any:
        """verl's, for a batch with SHARED_PROMPTS by micro-batches of whole groups."""
        if SHARED_PROMPTS not in data.keys():  # noqa: SIM118  # a TensorDict iterates over its rows
            return super().forward_backward_batch(data, loss_function, forward_only)
        group = self.get_data_parallel_group()
        tokens = data["loss_mask"].values().sum().to(get_device_id())
        dist.all_reduce(tokens, group=group)
        tu.assign_non_tensor(
            data,
            sp_size=self.ulysses_sequence_parallel_size,
            batch_num_tokens=tokens.item(),
            dp_size=self.get_data_parallel_size(),
        )
        outputs = []
        indices, total = self._micro_batches(data)
        for number, rows in enumerate(indices + [indices[-1]] * (total - len(indices))):
            idle = number >= len(indices)
            micro = tu.index_select_tensor_dict(data, rows)
            if idle:
                # Other ranks have more to do, and every pass is a collective: this one weighs nothing.
                micro["loss_mask"], micro["response_mask"] = (0 * micro["loss_mask"] for _ in range(2))
                micro = micro.exclude(ROUTES)
            last = number == total - 1
            sync = nullcontext() if forward_only else self._gradient_sync_context(is_last_micro_batch=last)
            with torch.no_grad() if forward_only else nullcontext(), sync:
                loss, output = self.forward_step(micro, loss_function=loss_function, forward_only=forward_only)
                if not forward_only:
                    torch.autograd.backward(loss)
                    output.pop("model_output", None)
            if not idle:
                outputs.append(output)
        return postprocess_batch_func(output_lst=outputs, indices=indices, data=data)

    def prepare_model_inputs(self, micro_batch: TensorDict) -> tuple[dict[str, Any], dict[str, Any]]:
        """verl's, with the routes of its rows."""
        inputs, arguments = super().prepare_model_inputs(micro_batch)
        rows, tokens = inputs["input_ids"].shape
        degree = self.ulysses_sequence_parallel_size
        width = None if tu.get(micro_batch, "use_remove_padding") else tokens
        inputs["replay"] = self._replay(micro_batch, plain_row, _slice_of(rows * tokens * degree, degree), width=width)
        return inputs, arguments

    def _replay(
        self, micro: TensorDict, lay_out: Callable[..., RowRoutes], here: slice, **layout: Any
    ) -> Replay | None:
        """The routes of this rank's slice of the micro-batch's ids, where they are replayed; counts what it trains."""
        routes = tu.get(micro, ROUTES)
        if routes is None:
            return None
        assert self._reader is not None
        rows = micro[ROW].tolist()
        self._reader.keep(routes.needed(rows))
        row = lay_out(routes, rows, here, self._reader.read, **layout)
        replay = Replay.of(row, get_device_name())
        if torch.is_grad_enabled():
            self._routed.append((row.tokens * len(routes.routing.layers), replay.replayed, replay.changed))
        return replay

    def forward_step(
        self, micro_batch: TensorDict, loss_function: Callable[..., Any] | None, forward_only: bool
    ) -> tuple[Tensor, dict[str, Any]]:
        """verl's, for a micro-batch with SHARED_PROMPTS on its packed row."""
        if SHARED_PROMPTS not in micro_batch.keys():  # noqa: SIM118
            result: tuple[Tensor, dict[str, Any]] = super().forward_step(micro_batch, loss_function, forward_only)
            return result
        device = get_device_name()
        prompts = tu.get(micro_batch, SHARED_PROMPTS)
        micro = micro_batch.to(get_device_id())
        cast = nullcontext() if self._autocast_dtype == torch.float32 else torch.autocast(device, self._autocast_dtype)
        with cast:
            model_output = self._model_output(micro, prompts)
            loss, metrics = torch.tensor(1.0, device=device), {}
            if loss_function is not None:
                loss, metrics = loss_function(
                    model_output=model_output, data=micro, dp_group=self.get_data_parallel_group()
                )
        found = {"model_output": detach_tree(model_output), "loss": loss.detach().item(), "metrics": metrics}
        return loss, found

    def _micro_batches(self, data: TensorDict) -> tuple[list[list[int]], int]:
        """The rows of `data` in micro-batches of whole groups, and how many all data-parallel ranks run."""
        limit = tu.get(data, "max_token_len_per_gpu") * self.ulysses_sequence_parallel_size
        lengths = data["responses"].offsets().diff().cpu().numpy()
        prompts = [len(ids) for ids in tu.get(data, SHARED_PROMPTS)]
        parts = parts_of(prompts, data["prompt"].numpy(), lengths, np.arange(len(lengths)), limit)
        batches = micro_batches(parts, limit)
        count = torch.tensor(len(batches), device=get_device_id())
        dist.all_reduce(count, op=dist.ReduceOp.MAX, group=self.get_data_parallel_group())
        ratio = pairs_per_token(shape(self.model_config.hf_config.to_dict()))
        total = int(count.item())
        cut = at_least(batches, total, ratio)
        return [sorted(row for part in batch for row in part.members) for batch in cut], total

    def _model_output(self, micro: TensorDict, prompts: list[np.ndarray]) -> dict[str, Tensor]:
        """`log_probs`, and `entropy` where the batch asks for it: jagged, a response's tokens and one zero each row."""
        responses = [ids.cpu().numpy() for ids in micro["responses"].unbind()]
        row = packed_row(prompts, responses, micro["prompt"].cpu().numpy())
        degree = self.ulysses_sequence_parallel_size
        padding = -len(row.ids) % degree
        device = micro["responses"].device
        here = _slice_of(len(row.ids) + padding, degree)
        mine = (row.segment_rows >= here.start) & (row.segment_rows < here.stop)
        # A slice without segments still takes part in the head's collectives, with a row that is thrown away.
        chosen = np.flatnonzero(mine) if mine.any() else np.zeros(1, np.int64)
        local = row.segment_rows[chosen] - here.start if mine.any() else np.zeros(1, np.int64)
        scores = self.module(
            input_ids=_padded(row.ids, padding)[here][None].to(device),
            position_ids=_padded(row.positions, padding)[here][None].to(device),
            shared_prefix=prefix_attention.Layout.of(row, device, padding),
            replay=self._replay(micro, shared_row, here),
            rows=torch.from_numpy(local).to(device),
            labels=micro["responses"].values()[torch.from_numpy(chosen).to(device)],
            temperature=float(tu.get(micro, "temperature")),
            fused=bool(tu.get(micro, "use_fused_kernels")),
            entropy=self._entropy if tu.get(micro, "calculate_entropy", False) else None,
        )
        whole = {}
        for name, values in scores.items():
            if not mine.any():
                values = 0.0 * values
            if degree > 1:
                slice_ = torch.zeros(here.stop - here.start, dtype=values.dtype, device=device)
                slice_ = slice_.index_add(0, torch.from_numpy(local).to(device), values)
                values = gather_outputs_and_unpad(slice_, gather_dim=0)[torch.from_numpy(row.segment_rows).to(device)]
            whole[name] = _with_ends(values, micro["responses"].offsets())
        return whole

    def _entropy(self, logits: Tensor) -> Tensor:
        """Of every row of logits, by the engine's own settings."""
        if self.engine_config.entropy_from_logits_with_chunking:
            chunked: Tensor = self.compute_entropy_from_logits(
                logits, chunk_size=self.engine_config.entropy_from_logits_chunk_size
            )
            return chunked
        plain: Tensor = self.compute_entropy_from_logits(logits)
        return plain


def register() -> None:
    """Make verl build this engine, ahead of its own for the device; again changes nothing."""
    device, vendor = get_device_name(), get_vendor()
    if (device, vendor) not in EngineRegistry._engines["language_model"][STRATEGY]:
        EngineRegistry.register("language_model", STRATEGY, device=device, vendor=vendor)(VerlEngine)


def _score_segments(
    model: Any,
    *,
    input_ids: Tensor,
    position_ids: Tensor,
    shared_prefix: prefix_attention.Layout,
    rows: Tensor,
    labels: Tensor,
    temperature: float,
    fused: bool,
    entropy: Callable[[Tensor], Tensor] | None,
    use_cache: bool = False,
) -> dict[str, Tensor]:
    """The model on a packed row, its output head on the segments' rows alone: log-probs of `labels`, and entropies.

    Args:
        input_ids, position_ids: [1, tokens of this rank]
        rows, labels: [s] where the segments' tokens are among them, and what each should predict.
        entropy: of logits [s, vocabulary]; None leaves it out. The fused cross-entropy has its own.
    """
    states = model.model(
        input_ids=input_ids, position_ids=position_ids, use_cache=use_cache, shared_prefix=shared_prefix
    ).last_hidden_state[:, rows]
    if fused:
        log_probs, entropies = FusedLinearForPPO(impl_backend="torch").forward(
            hidden_states=states, vocab_weights=model.lm_head.weight, input_ids=labels[None], temperature=temperature
        )
        log_probs, entropies = log_probs[0], entropies[0]
    else:
        logits = model.lm_head(states)[0].float() / temperature
        log_probs = logprobs_from_logits(logits, labels, inplace_backward=entropy is None)
        entropies = None if entropy is None else entropy(logits)
    return {"log_probs": log_probs} if entropy is None else {"log_probs": log_probs, "entropy": entropies}


def _slice_of(tokens: int, degree: int) -> slice:
    """This rank's share of a row whose length the Ulysses degree divides."""
    size = tokens // degree
    rank = get_ulysses_sequence_parallel_rank() if degree > 1 else 0
    return slice(rank * size, (rank + 1) * size)


def _padded(values: np.ndarray, padding: int) -> Tensor:
    return torch.from_numpy(np.pad(values.astype(np.int64), (0, padding)))


def _with_ends(values: Tensor, offsets: Tensor) -> Tensor:
    """Flat values of responses as verl's loss slices them: behind each, a place for what its last token predicts."""
    lengths = offsets.diff()
    places = torch.arange(len(values), device=values.device) + torch.repeat_interleave(
        torch.arange(len(lengths), device=values.device), lengths
    )
    whole = torch.zeros(len(values) + len(lengths), dtype=values.dtype, device=values.device)
    return torch.nested.nested_tensor_from_jagged(
        whole.index_add(0, places, values), offsets + torch.arange(len(offsets), device=offsets.device)
    )


@contextmanager
def _as_if_tied(module: torch.nn.Module) -> Iterator[None]:
    """What verl asks before it shards embedding and head apart from the root."""
    config: Any = module.config
    tied, config.tie_word_embeddings = config.tie_word_embeddings, True
    try:
        yield
    finally:
        config.tie_word_embeddings = tied
