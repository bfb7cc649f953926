"""The spans of a request that came with a trace: the response, and inside it its wait, its prefill and its decoding.

Names are OpenTelemetry's for generative AI, so that a trace reads like one of SGLang's own (`--enable-trace`).
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

from golongrl.engine.snapshot import RequestSnapshot
from golongrl.telemetry.tracing import HEADER, TraceContext, Tracing

OPERATION = "text_completion"
_PHASES = ("engine.queue", "engine.prefill", "engine.decode")


def nobody(_: RequestSnapshot) -> None:
    """Records nothing."""


def recorder(tracing: Tracing, model: str, headers: Mapping[str, str]) -> Callable[[RequestSnapshot], None]:
    """What is told of each response of a request once it has ended."""
    context = TraceContext.read(headers.get(HEADER)) if tracing.on else None
    if context is None:
        return nobody

    def ended(last: RequestSnapshot) -> None:
        times = last.timeline
        assert times.finished is not None
        own = tracing.child(context)
        tracing.record(
            f"{OPERATION} {model}", context, times.received, times.finished, _attributes(last, model), own=own
        )
        # An aborted request may not have come so far.
        moments = [times.received, times.admitted, times.prefilled, times.finished]
        for phase, (start, end) in zip(_PHASES, pairwise(moments), strict=True):
            if start is not None:
                tracing.record(phase, own, start, times.finished if end is None else end)

    return ended


def _attributes(last: RequestSnapshot, model: str) -> dict[str, Any]:
    assert last.finish is not None
    return {
        "gen_ai.operation.name": OPERATION,
        "gen_ai.provider.name": "golongrl",
        "gen_ai.request.model": model,
        "gen_ai.response.id": last.rid,
        "gen_ai.response.finish_reasons": [last.finish.type],
        "gen_ai.usage.input_tokens": last.prompt_tokens,
        "gen_ai.usage.cache_read.input_tokens": last.cached_tokens,
        "gen_ai.usage.output_tokens": len(last.output),
        "rl.policy.version": last.version,
    }
