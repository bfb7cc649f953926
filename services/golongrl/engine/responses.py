"""What the engine answers, in SGLang's shapes: pure functions from a snapshot to a JSON object."""

import time
from collections.abc import Mapping
from typing import Any

from golongrl.engine.scheduler import Decode, Finish, RequestSampling, first_stop
from golongrl.engine.snapshot import RequestSnapshot

# The character that stands for bytes which are no whole UTF-8 character (yet).
_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


def generation(
    snapshot: RequestSnapshot, sampling: RequestSampling, decode: Decode, *, logprobs: bool, logprob_text: bool = False
) -> dict[str, Any]:
    """The answer of `/generate` for one response; without a finish reason, a chunk of a stream."""
    return {
        "text": visible_text(snapshot, sampling, decode),
        "output_ids": list(snapshot.output),
        "meta_info": _meta_info(snapshot, decode, logprobs, logprob_text),
    }


def visible_text(snapshot: RequestSnapshot, sampling: RequestSampling, decode: Decode) -> str:
    """The output as text: without the stop token or string that ended it, or (mid-stream) a half character."""
    finish = snapshot.finish
    if finish is None:
        return decode(snapshot.output).rstrip(_INCOMPLETE)
    if finish.type != "stop" or not sampling.trim_stop:
        return decode(snapshot.output)
    if isinstance(finish.matched, int):
        return decode(snapshot.output[:-1])
    text = decode(snapshot.output)
    stop = first_stop(text, [str(finish.matched)])
    return text if stop is None else text[: text.rindex(stop)]


def _meta_info(snapshot: RequestSnapshot, decode: Decode, logprobs: bool, logprob_text: bool) -> dict[str, Any]:
    spans = [{"version": span.version, "start": span.start, "end": span.end} for span in snapshot.spans]
    finish, times, now = snapshot.finish, snapshot.timeline, time.time()
    meta: dict[str, Any] = {
        "id": snapshot.rid,
        "finish_reason": None if finish is None else finish_reason(finish, snapshot),
        "weight_version": snapshot.version,
    }
    if times.admitted is not None:
        meta |= {
            "prompt_tokens": snapshot.prompt_tokens,
            "num_retractions": snapshot.retractions,
            "storage_prefetch_wait": 0.0,
            "storage_staging_wait": 0.0,
            "forward_entry_time": times.admitted,
            "prefill_finished_time": times.prefilled,
            "queue_time": times.admitted - times.received,
        }
    if logprobs:
        meta |= {
            "input_token_logprobs": [],
            "output_token_logprobs": [
                [logprob, token, decode([token]) if logprob_text else None]
                for token, logprob in zip(snapshot.output, snapshot.logprobs, strict=True)
            ],
            "output_token_logprobs_length": len(snapshot.output),
        }
    meta["completion_tokens"] = len(snapshot.output)
    if times.admitted is not None:
        cached = snapshot.cached_tokens
        meta |= {
            "reasoning_tokens": 0,
            "cached_tokens": cached,
            "cached_tokens_details": {"device": cached, "host": 0} if cached else None,
            "dp_rank": None,
        }
    if finish is not None:
        meta["weight_versions"] = spans or [{"version": snapshot.version, "start": 0, "end": 0}]
        meta |= _latencies(snapshot, now)
        if snapshot.routes is not None and (encoded := snapshot.routes.encoded()) is not None:
            meta["routed_experts"] = encoded
    meta["response_sent_to_client_ts"] = now
    return meta


def _latencies(snapshot: RequestSnapshot, now: float) -> dict[str, float]:
    times = snapshot.timeline
    finished = times.finished or now
    latencies = {"e2e_latency": finished - times.received}
    if times.prefilled is not None:
        latencies |= {
            "request_received_ts": times.received,
            "first_token_latency": times.prefilled - times.received,
            "api_server_dispatch_finish_ts": times.received,
            "request_finished_ts": finished,
        }
        if len(snapshot.output) > 1 and finished > times.prefilled:
            latencies["decode_throughput"] = (len(snapshot.output) - 1) / (finished - times.prefilled)
    return latencies


def finish_reason(finish: Finish, snapshot: RequestSnapshot) -> dict[str, Any]:
    """SGLang's `finish_reason` object."""
    if finish.type == "length":
        return {"type": "length", "length": len(snapshot.output)}
    if finish.type == "stop":
        return {"type": "stop", "matched": finish.matched}
    reason: dict[str, Any] = {"type": "abort", "message": finish.message}
    # SGLang leaves these out for a request that never left its queue.
    return reason | ({"status_code": None, "err_type": None} if snapshot.timeline.admitted is not None else {})


def bad_request(message: str) -> dict[str, Any]:
    """The body of a request that is not of the endpoint's form."""
    return {"object": "error", "message": message, "type": "Bad Request", "param": None, "code": 400}


def weights_checked(checksums: Mapping[str, str], digest: str) -> dict[str, Any]:
    """The answer of `/weights_checker`: one rank, one engine."""
    rank = {"tp_rank": 0, "tp_size": 1, "dp_rank": 0, "dp_size": 1, "pp_rank": 0, "pp_size": 1, "rank": 0, "size": 1}
    return {
        "success": True,
        "message": "Success.",
        "ranks": [
            {
                "checksums": dict(checksums),
                "per_gpu_checksum": digest,
                "parallelism_info": [{"role": "target", **rank}],
            }
        ],
        "per_engine_checksum": digest,
    }
