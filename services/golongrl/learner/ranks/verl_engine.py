"""verl's FSDP2 engine as this learner runs it: registered in verl's registry for the device at hand, CPU included.

One thing differs. verl shards an untied output head as a unit of its own, whose parameters are whole only while the
head's own forward runs; its fused cross-entropy reads the head's weight without running it, and fails on the shards
(every untied model: Qwen3-30B-A3B and the like). Here the head then belongs to the root, whole during its forward.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from verl.utils.device import get_device_name, get_vendor
from verl.workers.engine import EngineRegistry
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

from golongrl.learner.ranks.verl_config import STRATEGY


class VerlEngine(FSDPEngineWithLMHead):  # type: ignore[misc]  # verl carries no types for it
    """FSDP2 with an output head that the fused cross-entropy can read."""

    def _build_fsdp_module(self, module: torch.nn.Module) -> Any:
        if not self.model_config.use_fused_kernels:
            return super()._build_fsdp_module(module)
        with _as_if_tied(module):
            return super()._build_fsdp_module(module)


def register() -> None:
    """Make verl build this engine, ahead of its own for the device; again changes nothing."""
    device, vendor = get_device_name(), get_vendor()
    if (device, vendor) not in EngineRegistry._engines["language_model"][STRATEGY]:
        EngineRegistry.register("language_model", STRATEGY, device=device, vendor=vendor)(VerlEngine)


@contextmanager
def _as_if_tied(module: torch.nn.Module) -> Iterator[None]:
    """What verl asks before it shards embedding and head apart from the root."""
    config: Any = module.config
    tied, config.tie_word_embeddings = config.tie_word_embeddings, True
    try:
        yield
    finally:
        config.tie_word_embeddings = tied
