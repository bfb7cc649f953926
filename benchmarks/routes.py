"""What a group's routes cost on their way, at the lengths of the packaged 30B-A3B recipe: bytes, CPU time, memory.

    python benchmarks/routes.py [--prompt 163840] [--answers 16] [--answer-tokens 16384]

The experts are drawn with a popularity of their own in each layer (log-normal, sigma 0.8), as a trained router has it;
uniform ones are the worst case. Needs no engine: the answer is made as SGLang makes it.
"""

import argparse
import base64
import json
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np

from golongrl.rollout.sglang.answers import RoutesAsked, parse_generation, parse_json
from golongrl.routes.groups import GroupRoutes
from golongrl.routes.model import MoeRouting
from golongrl.routes.reference import object_name
from golongrl.routes.store import open_folder, read_routes, write_routes

ROUTING = MoeRouting(48, tuple(range(48)), 8, 128)


def drawn(tokens: int, sigma: float) -> np.ndarray:
    """Experts of a layer's own popularity, uint8 [tokens, layers, k]. Drawing takes long, so a block is used again with
    its experts renamed: zstd then finds no repetition."""
    random = np.random.default_rng(0)
    block = np.empty((min(tokens, 8192), 48, 8), np.uint8)
    for layer in range(48):
        scores = random.gumbel(size=(len(block), 128)) + random.normal(0, sigma, 128)
        block[:, layer] = np.argpartition(-scores, 8, axis=1)[:, :8]
    blocks = [(block.astype(np.uint16) + 17 * number) % 128 for number in range(-(-tokens // len(block)))]
    return np.concatenate(blocks).astype(np.uint8)[:tokens]


def answer(routes: np.ndarray, tokens: int) -> bytes:
    """What SGLang sends."""
    meta = {
        "finish_reason": {"type": "length", "length": tokens},
        "output_token_logprobs": [[-1.0, 7, None]] * tokens,
        "weight_versions": [{"version": "0", "start": 0, "end": tokens}],
        "routed_experts": base64.b64encode(routes.astype(np.int32).tobytes()).decode(),
    }
    return json.dumps({"text": "", "output_ids": [7] * tokens, "meta_info": meta}).encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--prompt", type=int, default=163_840)
    parser.add_argument("--answers", type=int, default=16)
    parser.add_argument("--answer-tokens", type=int, default=16_384)
    asked = parser.parse_args()
    prompt, tokens = drawn(asked.prompt, 0.8), drawn(asked.answer_tokens - 1, 0.8)
    first = answer(np.concatenate([prompt, tokens]), asked.answer_tokens)
    print(f"answer with the prompt's routes {len(first) / 1e6:.0f} MB")
    print(f"answer without {len(answer(tokens, asked.answer_tokens)) / 1e6:.0f} MB")
    tracemalloc.start()
    begun = time.process_time()
    found = parse_generation(parse_json(first, "r"), "r", 512, RoutesAsked(ROUTING, asked.prompt))
    print(f"read and checked in {time.process_time() - begun:.2f} s of CPU", end=", ")
    print(
        f"{(tracemalloc.get_traced_memory()[1] + len(first)) / 1e9:.2f} GB at the peak, the answer's bytes among them"
    )
    tracemalloc.stop()
    assert found.routes is not None
    group = GroupRoutes(prompt, (tokens,) * asked.answers, 128)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "routes"
        open_folder(folder)
        begun = time.process_time()
        reference = write_routes(folder, object_name("0-0:0123abcd"), group)
        print(f"group {group.nbytes / 1e6:.1f} MB, stored {reference.bytes / 1e6:.1f} MB", end=", ")
        print(f"written in {time.process_time() - begun:.2f} s of CPU", end=", ")
        begun = time.process_time()
        read_routes(folder, reference)
        print(f"read in {time.process_time() - begun:.2f} s")


if __name__ == "__main__":
    main()
