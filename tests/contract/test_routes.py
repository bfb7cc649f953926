"""Experts of each token in an answer: the embedded engine's words are SGLang's, and the worker reads both alike.

A whole SGLang server does not start on a CPU with `--enable-return-routed-experts`: it registers the buffer of experts
with CUDA ("Torch not compiled with CUDA enabled"). So SGLang's own capturer and encoder run here with a plain buffer,
fed with a request that is prefilled, decoded, and found in the prefix cache by a second one.
"""

import base64
import json
import subprocess

import numpy as np
import pytest
import torch

from golongrl.engine.routes import RouteLog
from golongrl.errors import InputError
from golongrl.local.preflight import check_sglang
from golongrl.rollout.sglang.answers import RoutesAsked, parse_generation
from golongrl.routes.model import MoeRouting
from support.engine_process import SGLANG

# Three layers, of which the second is dense; two of 300 experts.
ROUTING = MoeRouting(hidden_layers=3, layers=(0, 2), top_k=2, experts=300)
PROMPT, OUTPUT = 5, 3

SERVER = """
import json, sys, torch
from types import SimpleNamespace as Names
from sglang.srt.managers.detokenizer_manager import DetokenizerManager
from sglang.srt.state_capturer import base

def plain(dims, dtype, device, pin_memory, allocator):
    return torch.empty(dims, dtype=dtype)

base.ALLOC_MEMORY_FUNCS = {"cpu": plain}
asked = json.load(sys.stdin)
experts = torch.tensor(asked["experts"], dtype=torch.int32)
capturer = base.BaseTopkCapturer(
    num_tokens=64, max_batch_size=8, num_layers=3, topk_size=2, device="cpu", name="routed_experts")

def forward(tokens, slots):
    for layer in (0, 2):
        capturer.capture(layer, experts[tokens, layer])
    capturer.on_forward_end(Names(out_cache_loc=torch.tensor(slots), out_cache_loc_virtual=None), False, None)

# The prompt in two chunks, then one token at a time, each into a slot of the cache that is somewhere.
forward([0, 1, 2], [40, 41, 42])
forward([3, 4], [7, 8])
forward([5], [20])
forward([6], [3])
pool = Names(req_to_token=torch.tensor([[40, 41, 42, 7, 8, 20, 3, 63]]))
rows = [capturer.get_topk(0, 8, pool, start) for start in (0, 5)]
# Another request whose prompt's first four tokens are cached: their slots are the first one's.
forward([4], [21])
again = Names(req_to_token=torch.tensor([[40, 41, 42, 7, 21, 62]]))
rows.append(capturer.get_topk(0, 6, again, 0))
print(json.dumps(DetokenizerManager._b64_encode_per_request([*rows, None])))
"""


def answered_by_sglang(experts: np.ndarray) -> list[str | None]:
    try:
        check_sglang(SGLANG)
    except InputError as error:
        pytest.skip(str(error))
    done = subprocess.run(
        [SGLANG / "bin" / "python", "-W", "ignore", "-c", SERVER],
        input=json.dumps({"experts": experts.tolist()}),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[str | None] = json.loads(done.stdout.splitlines()[-1])
    return found


def body(routes: str | None, tokens: int = OUTPUT) -> dict[str, object]:
    return {
        "text": "",
        "output_ids": [7] * tokens,
        "meta_info": {
            "finish_reason": {"type": "length", "length": tokens},
            "output_token_logprobs": [[-1.0, 7, None]] * tokens,
            "weight_versions": [{"version": "0", "start": 0, "end": tokens}],
            "routed_experts": routes,
        },
    }


@pytest.mark.full
@pytest.mark.timeout(900)
def test_sglangs_own_code_says_what_the_embedded_engine_says_and_the_worker_reads() -> None:
    random = np.random.default_rng(0)
    experts = np.zeros((PROMPT + OUTPUT - 1, 3, 2), np.int32)
    for token in experts:
        for layer in ROUTING.layers:
            token[layer] = random.choice(300, 2, replace=False)
    whole, tail, cached, unasked = answered_by_sglang(experts)
    assert unasked is None

    logs = []
    for start in (0, PROMPT):
        log = RouteLog(start)
        log.add(torch.from_numpy(experts[:PROMPT]), 0)
        for token in range(PROMPT, len(experts)):
            log.add(torch.from_numpy(experts[token : token + 1]), token)
        logs.append(log.encoded())
    assert [whole, tail] == logs

    for start, encoded in ((0, whole), (PROMPT, tail)):
        asked = RoutesAsked(ROUTING, PROMPT, start)
        read = parse_generation(body(encoded), "r", 512, asked).routes
        assert read is not None
        np.testing.assert_array_equal(read, experts[start:][:, list(ROUTING.layers)])
        assert encoded is not None
        assert len(encoded) <= asked.most_bytes(OUTPUT)
    # Tokens found in the cache have the experts with which they were computed.
    again = parse_generation(body(cached, 1), "r", 512, RoutesAsked(ROUTING, PROMPT)).routes
    assert again is not None
    np.testing.assert_array_equal(again, experts[:PROMPT, list(ROUTING.layers)])
    assert cached is not None
    assert np.frombuffer(base64.b64decode(cached), np.int32).size == PROMPT * 3 * 2
