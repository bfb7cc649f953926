"""The model and its key-value cache: prefill, one decode step for a whole ragged batch, and nothing about requests.

A running sequence owns a *slot*: row r of one preallocated tensor per layer, [slots, kv heads, capacity, head dim].
Slots 0..size-1 are in use; a sequence that ends gives its slot to the last one, so the batch is always dense and a
decode step costs what the running sequences cost, not what the batch once was. Rows are of different length: keys are
written at each row's own position and a mask hides what lies beyond.

Invariant: `lengths[r]` tokens of slot r have keys and values; positions beyond hold garbage that the mask hides.
"""

from typing import Any

import torch
from transformers import Cache, PreTrainedModel

from golongrl.engine.config import ModelFolderError
from golongrl.engine.routes import RouteRecorder

# Positions a slot starts with; doubled when a sequence outgrows it. Pages are only touched when used.
_INITIAL_CAPACITY = 256


class _Slots(Cache):  # type: ignore[misc]
    """What the model's attention layers write to and read from, during one forward pass."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self.rows = torch.empty(0, dtype=torch.long)
        self.positions = torch.empty(0, dtype=torch.long)
        self.reach = 0
        self.prefilled: list[tuple[torch.Tensor, torch.Tensor]] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Prefill: hand the states through and remember them. Decode: store one position a row, return all so far."""
        if self.prefilled is not None:
            self.prefilled.append((key_states, value_states))
            return key_states, value_states
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        keys[self.rows, :, self.positions] = key_states[:, :, 0]
        values[self.rows, :, self.positions] = value_states[:, :, 0]
        size = len(self.rows)
        return keys[:size, :, : self.reach], values[:size, :, : self.reach]


class Generator:
    """Runs a causal language model over slots. Not thread-safe: one thread owns it.

    Raises:
        ModelFolderError: the model has sliding-window layers, whose mask differs.
    """

    def __init__(self, model: PreTrainedModel, slots: int) -> None:
        if "sliding_attention" in (getattr(model.config, "layer_types", None) or ()):
            raise ModelFolderError("models with sliding-window attention are not supported by the embedded engine")
        self.model = model.eval()
        self.slots = slots
        self.size = 0
        self.lengths = torch.zeros(slots, dtype=torch.long)
        self.capacity = 0
        self.recorder = RouteRecorder(model)
        self._cache = _Slots()

    @property
    def used_tokens(self) -> int:
        """Tokens whose keys and values are held."""
        return int(self.lengths[: self.size].sum())

    @property
    def tensors(self) -> list[torch.Tensor]:
        """The cache's tensors."""
        return [*self._cache.keys, *self._cache.values]

    @torch.inference_mode()
    def prefill(self, prompts: list[tuple[tuple[int, ...], int]]) -> torch.Tensor:
        """Run `prompts`, (tokens, copies) each, in one pass and give every copy a new slot.

        Returns the next-token logits of the new slots in order, [sum of copies, V] float32.
        """
        lengths = torch.tensor([len(tokens) for tokens, _ in prompts])
        width = int(lengths.max())
        ids = torch.zeros(len(prompts), width, dtype=torch.long)
        for row, (tokens, _) in enumerate(prompts):
            ids[row, : len(tokens)] = torch.tensor(tokens)
        # Padding is on the right: under a causal mask no real token sees it.
        mask = torch.ones(width, width, dtype=torch.bool).tril_()[None, None]
        ends, which = torch.unique(lengths - 1, return_inverse=True)
        self._cache.prefilled = []
        out = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=torch.arange(width).unsqueeze(0).expand(len(prompts), -1),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=ends,
        )
        states, self._cache.prefilled = self._cache.prefilled, None
        copies = torch.repeat_interleave(torch.arange(len(prompts)), torch.tensor([count for _, count in prompts]))
        self._take_slots(states, copies, lengths, width)
        logits: torch.Tensor = out.logits[torch.arange(len(prompts)), which][copies].float()
        return logits

    def _take_slots(
        self, states: list[tuple[torch.Tensor, torch.Tensor]], copies: torch.Tensor, lengths: torch.Tensor, width: int
    ) -> None:
        start, end = self.size, self.size + len(copies)
        if end > self.slots:
            raise ValueError(f"{end} sequences for {self.slots} slots")
        self._reserve(width, states)
        for layer, (keys, values) in enumerate(states):
            self._cache.keys[layer][start:end, :, :width] = keys[copies]
            self._cache.values[layer][start:end, :, :width] = values[copies]
        self.lengths[start:end] = lengths[copies]
        self.size = end

    @torch.inference_mode()
    def decode(self, tokens: list[int]) -> torch.Tensor:
        """Append `tokens`, one for every slot in use; returns the next-token logits, [size, V] float32."""
        positions = self.lengths[: self.size].clone()
        reach = int(positions.max()) + 1
        self._reserve(reach)
        cache = self._cache
        cache.rows, cache.positions, cache.reach = torch.arange(self.size), positions, reach
        hidden = torch.arange(reach)[None, :] > positions[:, None]
        mask = torch.zeros(self.size, reach, dtype=self.model.dtype).masked_fill_(hidden, float("-inf"))
        out = self.model(
            input_ids=torch.tensor(tokens).unsqueeze(1),
            attention_mask=mask[:, None, None, :],
            position_ids=positions.unsqueeze(1),
            past_key_values=cache,
            use_cache=True,
        )
        self.lengths[: self.size] += 1
        logits: torch.Tensor = out.logits[:, -1].float()
        return logits

    @torch.inference_mode()
    def release(self, slot: int) -> None:
        """End the sequence of `slot`; the last slot's sequence moves there."""
        last = self.size - 1
        if slot != last:
            length = int(self.lengths[last])
            for tensors in (self._cache.keys, self._cache.values):
                for tensor in tensors:
                    tensor[slot, :, :length] = tensor[last, :, :length]
            self.lengths[slot] = length
        self.size = last

    def clear(self) -> None:
        """Drop every sequence."""
        self.size = 0

    @torch.inference_mode()
    def _reserve(self, positions: int, states: list[tuple[torch.Tensor, torch.Tensor]] | None = None) -> None:
        """Make every slot hold at least `positions`; `states` (of a prefill) say the shapes the first time."""
        if positions <= self.capacity:
            return
        capacity = max(_INITIAL_CAPACITY, 2 * self.capacity)
        while capacity < positions:
            capacity *= 2
        cache = self._cache
        if not cache.keys:
            if states is None:
                raise ValueError("decode before any prefill")
            cache.keys = [key.new_empty(self.slots, key.shape[1], 0, key.shape[3]) for key, _ in states]
            cache.values = [value.new_empty(self.slots, value.shape[1], 0, value.shape[3]) for _, value in states]
        for tensors in (cache.keys, cache.values):
            for layer, old in enumerate(tensors):
                # Not empty: memory may hold NaN, and a masked weight of 0 times NaN is NaN.
                new = old.new_zeros(self.slots, old.shape[1], capacity, old.shape[3])
                new[: self.size, :, : self.capacity] = old[: self.size]
                tensors[layer] = new
        self.capacity = capacity
