"""The scrape port of a job: a process without an HTTP server of its own that runs for a while and ends.

Served by a thread, so that a scrape is answered while the job computes. What a job counts is gone with it; its results
are in its files.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server

from golongrl.errors import InputError


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
        server, thread = start_http_server(port, host, registry)
    except (OSError, OverflowError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise InputError(f"--metrics-host {host} --metrics-port {port}: {reason}; choose another address") from error
    print(f"metrics: http://{host}:{server.server_port}/metrics", file=sys.stderr, flush=True)
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
