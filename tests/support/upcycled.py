"""A mixture of experts that answers like a dense Qwen3 model: every expert is the dense MLP, and some noise."""

import shutil
from pathlib import Path

EXPERTS, TOP_K = 8, 2


def upcycle(dense: Path, folder: Path, seed: int = 0, noise: float = 0.02) -> Path:
    """Write a Qwen3 mixture made from the Qwen3 model in `dense`, with its tokenizer.

    Without noise it would compute the same: the weights of a token's experts add up to one.
    """
    import torch
    from transformers import AutoModelForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

    model = AutoModelForCausalLM.from_pretrained(dense, dtype=torch.float32)
    keys = (
        "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim "
        "max_position_embeddings tie_word_embeddings bos_token_id eos_token_id pad_token_id rope_parameters "
        "rms_norm_eps"
    )
    config = Qwen3MoeConfig(
        **{key: getattr(model.config, key) for key in keys.split()},
        moe_intermediate_size=model.config.intermediate_size,
        num_experts=EXPERTS,
        num_experts_per_tok=TOP_K,
        norm_topk_prob=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mixture = Qwen3MoeForCausalLM(config)
        weights = model.state_dict()
        with torch.no_grad():
            for name, parameter in mixture.named_parameters():
                if name in weights:
                    parameter.copy_(weights[name])
            for layer, copy in zip(model.model.layers, mixture.model.layers, strict=True):
                up = torch.cat([layer.mlp.gate_proj.weight, layer.mlp.up_proj.weight])
                for target, source in (
                    (copy.mlp.experts.gate_up_proj, up),
                    (copy.mlp.experts.down_proj, layer.mlp.down_proj.weight),
                ):
                    target.copy_(source + noise * source.std() * torch.randn_like(target))
                copy.mlp.gate.weight.normal_(std=0.1)
    shutil.copytree(dense, folder, ignore=shutil.ignore_patterns("*.safetensors*", "config.json"))
    mixture.save_pretrained(folder)
    return folder
