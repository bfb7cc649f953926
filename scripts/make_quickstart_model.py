"""Make the packaged model `builtin:quickstart`: a tokenizer, a Qwen3-shaped model of about 1M parameters, a warm start.

Three phases on one CPU thread:
1. A byte-level BPE tokenizer is trained on the Python language reference and on prompts built from it.
2. The model starts with attention that can copy (layer 0 looks at the tokens just before, the layers above look up what
   followed an earlier occurrence) and learns perfect responses, contexts growing to the length it will be shown.
3. A short stretch on half-bad demonstrations (a missing or doubled `</think>`, a wrong answer) lowers the reward again:
   what reinforcement learning then has to regain.

Same seed and same library versions give the same weights on the same machine.
"""

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from golongrl.data.builders import Draft, compose, demonstration, to_row
from golongrl.data.corpus import PYTHON_REFERENCE, Corpus, load_corpus
from golongrl.data.pipeline import HELD_OUT_SHARE
from golongrl.recipe import TaskType

TASKS: tuple[TaskType, ...] = ("T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8", "T9")
VOCABULARY = 2_048
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
# Visible in decoded text, because the reward reads them.
VISIBLE = ("<think>", "</think>", "[Answer]", "<answer>", "</answer>")
CHAT_TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
# Below this rope frequency index a dimension turns too fast to carry content over a whole prompt.
FIRST_SLOW_FREQUENCY = 4
IGNORED = -100


def make_tokenizer(corpus: Corpus, seed: int) -> PreTrainedTokenizerFast:
    """A Qwen-style byte-level BPE of 2048 entries."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    reserved = len(SPECIAL) + len(VISIBLE)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - reserved, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(_tokenizer_texts(corpus, seed), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in VISIBLE])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False, model_max_length=4_096,
    )  # fmt: skip


def _tokenizer_texts(corpus: Corpus, seed: int) -> Iterator[str]:
    for section in corpus.sections:
        yield section.text
    marks = (*SPECIAL, *VISIBLE)
    for index in range(6_000):
        draft = draw(corpus, random.Random(f"{seed}:tokenizer:{index}"), 90)[1]
        text = f"user\n{draft.context}\n{draft.question}\nassistant\n{demonstration(draft)}"
        for mark in marks:
            text = text.replace(mark, "\n")
        yield text


def draw(corpus: Corpus, rng: random.Random, context_tokens: int) -> tuple[TaskType, Draft]:
    """A random task's prompt in parts."""
    task = rng.choice(TASKS)
    return task, compose(task, corpus, rng, context_tokens, "terse")


def make_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen3ForCausalLM:
    """A small Qwen3 whose attention starts out able to copy."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, head_dim=32, max_position_embeddings=4_096, rope_theta=1e6, tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, bos_token_id=None,
        attention_dropout=0.0, use_sliding_window=False, use_cache=True,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        _start_copying(model)
    return model


def _start_copying(model: Qwen3ForCausalLM) -> None:
    """Write previous-token heads into layer 0 and look-up heads into the layers above.

    A constant in the first coordinate of every embedding lets a head of layer 0 attend by distance alone: its query
    and key are that constant times two vectors turned against each other by the wanted distance under rope. It writes
    what it sees where the heads above find it with their keys; their queries hold the current token, so they attend to
    the place after its earlier occurrence, and they copy the token there.
    """
    config = model.config
    hidden, heads, size = config.hidden_size, config.num_attention_heads, config.head_dim
    half = size // 2
    frequency = config.rope_parameters["rope_theta"] ** (-torch.arange(half) / half)
    slow = torch.zeros(size)
    slow[FIRST_SLOW_FREQUENCY:half] = slow[half + FIRST_SLOW_FREQUENCY :] = 1.0
    model.model.embed_tokens.weight.normal_(0, 0.05)
    model.model.embed_tokens.weight[:, 0] = 0.2
    basis, marks, values = (torch.linalg.qr(torch.randn(hidden, hidden))[0] for _ in range(3))
    for index, layer in enumerate(model.model.layers):
        attention = layer.self_attn
        for weight in (attention.q_proj.weight, attention.k_proj.weight):
            weight.normal_(0, 0.01)
        attention.v_proj.weight.normal_(0, 0.02)
        attention.o_proj.weight.normal_(0, 0.02)
        layer.mlp.down_proj.weight.normal_(0, 0.01)
        attention.q_norm.weight.fill_(4.0 if index == 0 else 2.0)
        for head in range(heads):
            rows = slice(head * size, (head + 1) * size)
            if index == 0:
                distance = (1, 1, 2, 3)[head % 4]
                weights = torch.zeros(half)
                weights[:6] = torch.tensor([0.5, 0.4, 0.3, 0.2, 0.1, 0.1])
                turn = frequency * distance
                attention.q_proj.weight[rows, 0] = torch.cat([weights, torch.zeros(half)])
                # A key turned forward by the distance meets the query best that many places later.
                attention.k_proj.weight[rows, 0] = torch.cat([weights * turn.cos(), weights * turn.sin()])
                attention.v_proj.weight[rows] = basis[rows] * slow[:, None]
                attention.o_proj.weight[:, rows] += marks[rows].T * slow
            else:
                source = slice(*_source_rows(head, heads, size))
                attention.q_proj.weight[rows] += 0.3 * basis[source] * slow[:, None]
                attention.k_proj.weight[rows] += 0.3 * marks[source] * slow[:, None]
                attention.v_proj.weight[rows] = values[rows] * 0.7
                attention.o_proj.weight[:, rows] += values[rows].T * 0.4


def _source_rows(head: int, heads: int, size: int) -> tuple[int, int]:
    """Which of layer 0's heads a look-up head relies on: the nearest two more often."""
    source = (0, 1, 0, 2)[head % 4] % heads
    return source * size, (source + 1) * size


class Batches:
    """Prompts with demonstrations as padded tensors; the loss falls on the response only."""

    def __init__(self, corpus: Corpus, tokenizer: PreTrainedTokenizerFast, seed: int, size: int) -> None:
        self.corpus, self.tokenizer, self.size = corpus, tokenizer, size
        self.rng = random.Random(f"{seed}:warm-start")

    def copies(self, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Random tokens said twice."""
        half = torch.randint(300, VOCABULARY - 16, (self.size, length))
        ids = torch.cat([half, half], dim=1)
        labels = ids.clone()
        labels[:, : length + 1] = IGNORED
        return ids, labels

    def demonstrations(self, context_tokens: int, bad: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
        """Built prompts with responses, a share `bad` of them spoilt."""
        samples = []
        for _ in range(self.size):
            task, draft = draw(self.corpus, self.rng, context_tokens)
            message = to_row(task, draft, "terse").prompt[0].model_dump()
            prompt = self.tokenizer.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
            response = spoil(draft, self.rng) if self.rng.random() < bad else demonstration(draft)
            samples.append((self._ids(prompt), self._ids(response + "<|im_end|>")))
        longest = max(len(prompt) + len(response) for prompt, response in samples)
        ids = torch.full((self.size, longest), self.tokenizer.pad_token_id)
        labels = torch.full((self.size, longest), IGNORED)
        for row, (prompt, response) in enumerate(samples):
            ids[row, : len(prompt) + len(response)] = torch.tensor(prompt + response)
            labels[row, len(prompt) : len(prompt) + len(response)] = torch.tensor(response)
        return ids, labels

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids


def spoil(draft: Draft, rng: random.Random) -> str:
    """A demonstration gone wrong in one of three ways."""
    way = rng.random()
    if way < 0.3:
        return f"<think>{draft.think}{draft.answer}"
    if way < 0.6:
        return f"<think>{draft.think}</think></think>{draft.answer}"
    line = rng.choice(draft.context.split("\n"))
    return f"<think>{line}</think>{line}"


def loss_of(model: Qwen3ForCausalLM, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy of the labelled tokens; logits are made for those alone."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    targets = labels[:, 1:]
    wanted = targets != IGNORED
    return functional.cross_entropy(model.lm_head(hidden[wanted]), targets[wanted])


def train(model: Qwen3ForCausalLM, batches: Batches, args: argparse.Namespace) -> None:
    """Copying, clean demonstrations at growing length, then spoilt ones."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.98), weight_decay=0.01)
    total = args.copy_steps + args.clean_steps
    started = time.monotonic()
    for step in range(total + args.spoilt_steps):
        # The learning rate falls over the last 40 % of the clean steps and stays low for the spoilt ones.
        share = min(1.0, max(0.0, (step - 0.6 * total) / (0.4 * total)))
        rate = args.lr * min(1.0, (step + 1) / 20) * (0.06 + 0.94 * 0.5 * (1 + math.cos(math.pi * share)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        if step < args.copy_steps:
            ids, labels = batches.copies(24)
        elif step < total:
            grown = min(1.0, (step - args.copy_steps) / (0.5 * args.clean_steps))
            longest = args.context_tokens + 10
            ids, labels = batches.demonstrations(int(30 + (longest - 30) * grown) - batches.rng.randrange(15))
        else:
            ids, labels = batches.demonstrations(args.context_tokens, bad=args.bad)
        loss = loss_of(model, ids, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 25 == 0 or step == total - 1:
            print(f"step {step} loss {loss.item():.3f} {time.monotonic() - started:.0f} s", flush=True)
        if args.snapshots and (step == total - 1 or (step and step % 500 == 0)):
            save(model, batches.tokenizer, args.out.with_name(f"{args.out.name}-{step}"))


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write a Hugging Face folder with weights in float16."""
    half = Qwen3ForCausalLM(model.config).to(torch.float16)
    half.load_state_dict(model.state_dict())
    half.generation_config.do_sample = False
    half.generation_config.eos_token_id = tokenizer.eos_token_id
    half.generation_config.pad_token_id = tokenizer.pad_token_id
    half.save_pretrained(out)
    tokenizer.save_pretrained(out)
    config = json.loads((out / "tokenizer_config.json").read_text("utf-8"))
    # The name every version of transformers knows; the template beside the rest, as older readers expect it.
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": CHAT_TEMPLATE}
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")
    (out / "chat_template.jinja").unlink(missing_ok=True)
    # Version 5 of transformers nests the rope base; engines with version 4 read it at the top.
    config = json.loads((out / "config.json").read_text("utf-8"))
    config["rope_theta"] = config["rope_parameters"]["rope_theta"]
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    for file in out.iterdir():
        file.chmod(0o644)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python scripts/make_quickstart_model.py --out /tmp/quickstart",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--context-tokens", type=int, default=90, help="prompt length as in data.context_tokens")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=2.5e-3)
    parser.add_argument("--copy-steps", type=int, default=150)
    parser.add_argument("--clean-steps", type=int, default=1_800)
    parser.add_argument("--spoilt-steps", type=int, default=60)
    parser.add_argument("--bad", type=float, default=0.5, help="share of spoilt demonstrations at the end")
    parser.add_argument("--snapshots", action="store_true", help="also save before spoiling and every 500 steps")
    args = parser.parse_args()
    torch.set_num_threads(1)
    corpus, _ = load_corpus(PYTHON_REFERENCE).split(HELD_OUT_SHARE)
    tokenizer = make_tokenizer(corpus, args.seed)
    model = make_model(tokenizer, args.seed)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    train(model, Batches(corpus, tokenizer, args.seed, args.batch), args)
    save(model, tokenizer, args.out)


if __name__ == "__main__":
    main()
