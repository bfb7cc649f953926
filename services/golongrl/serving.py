"""How every process of GoLongRL serves HTTP: bind the address, run uvicorn, stop cleanly on a signal.

Invariants:
- an address that cannot be bound is found before anything slow starts, and is one line;
- uvicorn never raises a signal again: whoever runs the server decides how the process ends;
- after SIGTERM or SIGINT a server accepts no more, and running requests have a bounded time to finish;
- slow clients, idle ones and those that send too much cost a bounded time and memory (`connections`).
"""

import asyncio
import errno
import signal
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute

from golongrl.connections import protocol
from golongrl.errors import InputError, printable

# Connections waiting to be accepted while the event loop is busy: a burst from every rollout worker at once.
_BACKLOG = 4096
# A probe or a scrape still running when its process is done; such a server answers nothing else.
_PROBE_GRACE_S = 5
# Faults of a body in a line, and characters of one and of a key in it.
_MOST_FAULTS = 8
_LONGEST_FAULT, _LONGEST_PART = 300, 80
_FASTAPI_UNREADABLE = "There was an error parsing the body"
UNREADABLE = "the body cannot be read: it must be JSON in UTF-8, with numbers and nesting of ordinary size"
# What another port, unlike another address, can solve.
_PORT_TROUBLE = frozenset({errno.EADDRINUSE, errno.EACCES})


def bind(host: str, port: int) -> socket.socket:
    """A socket at this address, not yet listening: connections are refused until the server runs. Port 0 is a free one.

    Raises:
        InputError: the address cannot be bound.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with _one_line(host, port):
            listener.bind((host, port))
    except InputError:
        listener.close()
        raise
    return listener


@contextmanager
def _one_line(host: str, port: int) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeError) as error:
        number = error.errno if isinstance(error, OSError) else None
        advice = "choose another --port" if number in _PORT_TROUBLE else "check --host"
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise InputError(f"--host {host} --port {port}: {reason}; {advice}") from error


def _listen(listener: socket.socket) -> None:
    """Accept connections from now on; fails where another process that had bound the same port was faster."""
    with _one_line(*listener.getsockname()[:2]):
        listener.listen(_BACKLOG)


class Server(uvicorn.Server):
    """uvicorn that leaves the process's signals to its owner."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(app: Any, *, grace_s: int, lifespan: bool) -> Server:
    config = uvicorn.Config(
        app,
        http=protocol(),
        ws="none",
        backlog=_BACKLOG,
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="on" if lifespan else "off",
        timeout_graceful_shutdown=grace_s,
    )
    return Server(config)


@asynccontextmanager
async def served(app: Any, listener: socket.socket | None) -> AsyncIterator[None]:
    """Serve `app` inside the context while the process does its main work; None serves nothing."""
    if listener is None:
        yield
        return
    server = _server(app, grace_s=_PROBE_GRACE_S, lifespan=False)
    with listener:
        _listen(listener)
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield
        finally:
            server.should_exit = True
            await task


def run(app: Any, listener: socket.socket, *, grace_s: int) -> None:
    """Serve `app` until SIGTERM or SIGINT, then finish running requests within `grace_s` and return."""
    server = _server(app, grace_s=grace_s, lifespan=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)
    with listener:
        _listen(listener)
        server.run(sockets=[listener])


def without_redirects(routes: Sequence[BaseRoute]) -> Starlette:
    """An app of these routes. A path with a slash too many is not found: a redirect would lead to whatever host the
    client named."""
    app = Starlette(routes=routes)
    app.router.redirect_slashes = False
    return app


def body_problem(errors: Sequence[Mapping[str, Any]]) -> str:
    """What is wrong with a request's body, in one line: the fields at fault, the first of many.

    Args:
        errors: what FastAPI's RequestValidationError lists.
    """
    told = []
    for error in errors[:_MOST_FAULTS]:
        if error["type"] == "json_invalid":
            told.append(f"the body is not valid JSON: {error.get('ctx', {}).get('error', error['msg'])}")
            continue
        if error["type"] == "missing" and tuple(error["loc"]) == ("body",):
            told.append("the body is empty; it must be a JSON object")
            continue
        if tuple(error["loc"]) == ("body",) and isinstance(error.get("input"), bytes):
            told.append("the body must be JSON, with Content-Type: application/json")
            continue
        where = [str(part)[:_LONGEST_PART] for part in error["loc"] if part != "body"]
        told.append(f"{'.'.join(where) or 'the body'}: {error['msg'].removeprefix('Value error, ')[:_LONGEST_FAULT]}")
    more = f" (and {len(errors) - _MOST_FAULTS} more)" if len(errors) > _MOST_FAULTS else ""
    return " ".join(printable("; ".join(dict.fromkeys(told)) + more).split())


def refusal(error: StarletteHTTPException) -> str:
    """The line of a refusal, in place of FastAPI's own words for a body that it cannot decode."""
    return UNREADABLE if error.detail == _FASTAPI_UNREADABLE else str(error.detail)


def exposition(registry: CollectorRegistry, accept: str = "") -> Response:
    """A registry's metrics as Prometheus reads them: the answer of /metrics. Exemplars are there for who accepts
    OpenMetrics."""
    try:
        encode, kind = choose_encoder(accept)
        return Response(encode(registry), media_type=kind)
    except (TypeError, ValueError):  # it compares versions in the header that are no numbers
        encode, kind = choose_encoder("")
        return Response(encode(registry), media_type=kind)
