"""OpenTelemetry spans of groups and of weight versions, sent by OTLP over HTTP; off unless an endpoint is set.

Invariants:
- a group's trace is known by its run and uid alone, and a version's by its run, lineage and number: whichever process
  works on it, before or after a crash, adds to the same trace;
- spans are recorded once what they tell of is over, so a process that dies leaves out only what it had not finished;
- a collector that is slow or away costs the run nothing: spans are sent by a thread, from a bounded queue.

Names: `rl.loop`, `rl.sample`, `rl.reward`, `rl.train`, `rl.sync` and their attributes are those of a proposal to
OpenTelemetry (semantic-conventions-genai, issue 88), `gen_ai.*` those of its conventions; docs/monitoring.md lists
which are this project's own.
"""

import hashlib
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import golongrl
from golongrl.errors import InputError

# As OpenTelemetry's exporters read it; `/v1/traces` is added to it.
ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"
_PATH: Final = "/v1/traces"
HEADER: Final = "traceparent"
# Of one request to the collector, and the most that the end of a process waits for it.
_SEND_S: Final = 5
_PARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


@dataclass(frozen=True)
class TraceContext:
    """A trace and the span that others are children of."""

    trace: int
    span: int

    @property
    def traceparent(self) -> str:
        """As W3C's header carries it."""
        return f"00-{self.trace:032x}-{self.span:016x}-01"

    @property
    def trace_id(self) -> str:
        """As logs, exemplars and trace backends write it."""
        return f"{self.trace:032x}"

    @classmethod
    def read(cls, header: str | None) -> "TraceContext | None":
        """From a header; None where there is none, or one of another kind."""
        found = _PARENT.fullmatch(header or "")
        if found is None or int(found[1], 16) == 0 or int(found[2], 16) == 0:
            return None
        return cls(int(found[1], 16), int(found[2], 16))


@dataclass(frozen=True)
class OpenSpan:
    """A span that has begun."""

    headers: Mapping[str, str]
    """What a request carries, so that its receiver's spans are children of this one."""
    attributes: dict[str, Any]
    """The block may add to them."""


def of_group(run: str, uid: str) -> TraceContext:
    """The trace of a group."""
    return _context("group", run, uid)


def of_version(run: str, lineage: str, version: int) -> TraceContext:
    """The trace of a weight version."""
    return _context("version", run, lineage, str(version))


def _context(*parts: str) -> TraceContext:
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "replace")).digest()
    # Neither may be 0.
    return TraceContext(int.from_bytes(digest[:16]) or 1, int.from_bytes(digest[16:24]) or 1)


class Tracing:
    """What one process records. Made by `tracing`; without an endpoint every call does nothing.

    Args:
        processor: of opentelemetry-sdk, or None.
    """

    def __init__(self, service: str, run: str = "", processor: Any = None) -> None:
        self.run = run
        self._service = service
        self._processor = processor
        self._resource: Any = None

    @property
    def on(self) -> bool:
        """Whether spans go anywhere."""
        return self._processor is not None

    def headers(self, context: TraceContext) -> dict[str, str]:
        """What a request carries, so that its receiver's spans join the trace."""
        return {HEADER: context.traceparent} if self.on else {}

    @staticmethod
    def child(context: TraceContext) -> TraceContext:
        """A span of its own in the trace, known before it is recorded, so that others can be its children."""
        return TraceContext(context.trace, int.from_bytes(os.urandom(8)) or 1)

    def exemplar(self, context: TraceContext) -> dict[str, str] | None:
        """What links an observation of a histogram to the trace."""
        return {"trace_id": context.trace_id} if self.on else None

    def record(
        self,
        name: str,
        context: TraceContext,
        start: float,
        end: float,
        attributes: Mapping[str, Any] | None = None,
        *,
        root: bool = False,
        own: TraceContext | None = None,
    ) -> None:
        """A span from `start` to `end` (seconds since 1970): the trace's root, or a child of `context`'s span.

        `own` is what `child` gave for it.
        """
        if not self.on:
            return
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import SpanContext, TraceFlags

        def context_of(span: int) -> SpanContext:
            return SpanContext(context.trace, span, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))

        span = ReadableSpan(
            name,
            context=context_of(context.span if root else (own or self.child(context)).span),
            parent=None if root else context_of(context.span),
            resource=self._described(),
            attributes={**(attributes or {})},
            start_time=int(start * 1e9),
            end_time=int(max(start, end) * 1e9),
        )
        self._processor.on_end(span)

    @contextmanager
    def recorded(self, name: str, context: TraceContext, attributes: Mapping[str, Any]) -> Iterator[OpenSpan]:
        """A span around the block. A block that fails or is cancelled has one too, with `error.type`: others' spans are
        its children."""
        own = self.child(context)
        span = OpenSpan(self.headers(own), {**attributes})
        wall, begun = time.time(), time.monotonic()
        try:
            yield span
        except BaseException as error:
            span.attributes["error.type"] = type(error).__name__
            raise
        finally:
            self.record(name, context, wall, wall + time.monotonic() - begun, span.attributes, own=own)

    def close(self) -> None:
        """Send what is left, for a bounded time."""
        if self._processor is not None:
            # By itself it would wait half a minute for a collector that is away.
            ending = threading.Thread(target=self._processor.shutdown, daemon=True)
            ending.start()
            ending.join(_SEND_S)

    def _described(self) -> Any:
        from opentelemetry.sdk.resources import Resource

        if self._resource is None:
            version = golongrl.__version__
            fields = {"service.name": f"golongrl-{self._service}", "service.version": version}
            fields |= {"rl.system": "golongrl", "rl.system.version": version}
            self._resource = Resource.create({**fields, **({"rl.run.id": self.run} if self.run else {})})
        return self._resource


def endpoint_of(recipes: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """Where this process sends spans: what the environment says, else the recipe; empty for nowhere."""
    return environment.get(ENDPOINT) or recipes or ""


def traces_url(endpoint: str) -> str:
    """Where an exporter posts spans to."""
    return endpoint.rstrip("/") + _PATH


def tracing(
    service: str, run: str = "", environment: Mapping[str, str] = os.environ, recipes: str | None = None
) -> Tracing:
    """What this process records: on where the environment or the recipe (`telemetry.otlp_endpoint`) has an endpoint.

    Raises:
        InputError: it has one, and opentelemetry's packages are not installed.
    """
    endpoint = endpoint_of(recipes, environment)
    if not endpoint:
        return Tracing(service, run)
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise InputError(
            f"traces are to be sent to {endpoint}, and opentelemetry is not installed: install golongrl[otel]"
        ) from error
    exporter = OTLPSpanExporter(traces_url(endpoint), timeout=_SEND_S)
    return Tracing(service, run, BatchSpanProcessor(exporter))
