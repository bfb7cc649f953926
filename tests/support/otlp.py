"""A collector in this process: what OTLP over HTTP brings, as spans by trace."""

import gzip
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass
class Received:
    """One span."""

    service: str
    name: str
    trace: int
    span: int
    parent: int
    start: float
    end: float
    attributes: dict[str, str | int | float]


@dataclass
class Collector:
    """Where to send, and what came."""

    endpoint: str = ""
    spans: list[Received] = field(default_factory=list)

    def traces(self) -> dict[int, list[Received]]:
        """Spans by trace."""
        found: defaultdict[int, list[Received]] = defaultdict(list)
        for span in list(self.spans):
            found[span.trace].append(span)
        return dict(found)


@contextmanager
def collector() -> Iterator[Collector]:
    """A collector on a free port."""
    made = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            made.spans += _read(body)
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    made.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()


def _read(body: bytes) -> Iterator[Received]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        (service,) = [each.value.string_value for each in resource.resource.attributes if each.key == "service.name"]
        for scope in resource.scope_spans:
            for span in scope.spans:
                values = {each.key: each.value for each in span.attributes}
                yield Received(
                    service,
                    span.name,
                    int.from_bytes(span.trace_id),
                    int.from_bytes(span.span_id),
                    int.from_bytes(span.parent_span_id),
                    span.start_time_unix_nano / 1e9,
                    span.end_time_unix_nano / 1e9,
                    {key: getattr(value, str(value.WhichOneof("value"))) for key, value in values.items()},
                )
