"""The slot cache: any history of prefills, decode steps and releases gives the logits of a plain forward pass."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from golongrl.engine.config import ModelFolderError
from golongrl.engine.generator import Generator


def qwen3(**options) -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2}
    return Qwen3ForCausalLM(Qwen3Config(**sizes, **heads, **options)).float().eval()


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=3,
        num_key_value_heads=1, initializer_range=0.2,
    )  # fmt: skip
    return LlamaForCausalLM(config).float().eval()


MODELS = {"qwen3": qwen3(), "llama": llama()}


@torch.no_grad()
def plain(model, tokens: list[int]) -> torch.Tensor:
    return model(input_ids=torch.tensor([tokens])).logits[0, -1]


def same(model, logits: torch.Tensor, sequences: list[list[int]]) -> None:
    for row, tokens in enumerate(sequences):
        assert torch.allclose(logits[row], plain(model, tokens), atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
@given(data=st.data())
@settings(max_examples=25)
def test_any_history_equals_plain_passes(name: str, data: st.DataObject) -> None:
    model = MODELS[name]
    generator, sequences = Generator(model, slots=6), []
    token = st.integers(0, 63)
    for _ in range(data.draw(st.integers(1, 12))):
        action = data.draw(st.sampled_from(["prefill", "decode", "decode", "release"]))
        if action == "prefill" and len(sequences) < 6:
            prompts = data.draw(
                st.lists(st.tuples(st.lists(token, min_size=1, max_size=9), st.integers(1, 2)), min_size=1, max_size=2)
            )
            fresh = [list(tokens) for tokens, copies in prompts for _ in range(copies)]
            if len(sequences) + len(fresh) > 6:
                continue
            logits = generator.prefill([(tuple(tokens), copies) for tokens, copies in prompts])
            same(model, logits, fresh)
            sequences += fresh
        elif action == "decode" and sequences:
            tokens = [data.draw(token) for _ in sequences]
            logits = generator.decode(tokens)
            sequences = [[*before, new] for before, new in zip(sequences, tokens, strict=True)]
            same(model, logits, sequences)
        elif action == "release" and sequences:
            slot = data.draw(st.integers(0, len(sequences) - 1))
            generator.release(slot)
            sequences[slot] = sequences[-1]
            sequences.pop()
        assert generator.size == len(sequences)
        assert generator.used_tokens == sum(map(len, sequences))


def test_a_sequence_outgrows_the_first_capacity() -> None:
    model = MODELS["qwen3"]
    generator = Generator(model, slots=2)
    long, short = [i % 64 for i in range(254)], [1, 2]
    generator.prefill([(tuple(long), 1), (tuple(short), 1)])
    for step in range(6):
        logits = generator.decode([step, step])
        long.append(step)
        short.append(step)
    assert generator.capacity == 512
    same(model, logits, [long, short])


def test_too_many_sequences_are_an_error() -> None:
    with pytest.raises(ValueError, match="3 sequences for 2 slots"):
        Generator(MODELS["qwen3"], slots=2).prefill([((1,), 3)])


def test_sliding_window_models_are_refused() -> None:
    with pytest.raises(ModelFolderError, match="sliding-window"):
        Generator(qwen3(use_sliding_window=True, sliding_window=4, max_window_layers=0), slots=1)
