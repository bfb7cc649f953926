"""The scrape port of a job: a process without an HTTP server of its own that runs for a while and ends.

Served by threads, so that a scrape is answered while the job computes. What a job counts is gone with it; its results
are in its files. A client that is slow or says nothing costs a thread for a bounded time, and of too many connections
the oldest gives way, so that a scrape is always answered.
"""

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from golongrl.errors import InputError

# Prometheus sends its request at once and reads the answer within its own ten seconds.
_SILENCE_S = 15.0
# A few Prometheus servers scrape at the same time, each on one connection.
_MOST = 32


class _Handler(WSGIRequestHandler):
    """Says nothing about requests."""

    timeout = _SILENCE_S

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], registry: CollectorRegistry) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._open: dict[socket.socket, None] = {}
        self._lock = threading.Lock()
        super().__init__(address, _Handler)
        self.set_app(make_wsgi_app(registry))

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open[request] = None
            oldest = next(iter(self._open)) if len(self._open) > _MOST else None
            if oldest is not None:
                del self._open[oldest]
        if oldest is not None:
            with suppress(OSError):
                oldest.shutdown(socket.SHUT_RDWR)  # its thread then closes it
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is gone or silent is nothing that the job has to say."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


@contextmanager
def scraped(registry: CollectorRegistry, host: str, port: int | None) -> Iterator[int | None]:
    """Serve the registry on /metrics inside the context; gives the port, of which 0 takes a free one. None: nowhere.

    Raises:
        InputError: the address cannot be bound.
    """
    if port is None:
        yield None
        return
    try:
        server = _Server((host, port), registry)
    except (OSError, OverflowError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise InputError(f"--metrics-host {host} --metrics-port {port}: {reason}; choose another address") from error
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    print(f"metrics: http://{host}:{server.server_port}/metrics", file=sys.stderr, flush=True)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
