"""The one way to serve HTTP: addresses, signals, the end."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from golongrl.errors import InputError
from golongrl.serving import bind, exposition, served, without_redirects
from support.redis_server import free_port

# Answers one request slowly enough that the signal comes in between, then is done.
SLOW = """
import asyncio, os, sys
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from golongrl.serving import bind, run

async def slow(_):
    print("begun", flush=True)
    sys.stdin.readline()
    return PlainTextResponse("whole")

run(Starlette(routes=[Route("/", slow)]), bind("127.0.0.1", int(sys.argv[1])), grace_s=60)
print("returned", flush=True)
"""


async def hello(_: object) -> PlainTextResponse:
    return PlainTextResponse("hello")


APP = Starlette(routes=[Route("/", hello)])


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("127.0.0.1", None, "Address already in use; choose another --port"),
        ("192.0.2.1", 0, "Cannot assign requested address; check --host"),
        ("not a host", 0, "check --host"),
        ("a" * 70, 0, "check --host"),
    ],
)
def test_an_address_that_cannot_be_bound_is_one_line(host: str, port: int | None, message: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1] if port is None else port
        with pytest.raises(InputError, match=re.escape(f"--host {host} --port {port}: ")) as refused:
            bind(host, port)
    assert message in str(refused.value)
    assert refused.value.exit_code == 2


async def test_it_is_served_inside_the_context_and_the_port_is_free_again() -> None:
    port = free_port()
    listener = bind("127.0.0.1", port)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:
        with pytest.raises(httpx.ConnectError):  # bound is not yet listening
            await client.get("/")
        async with served(APP, listener):
            assert (await client.get("/")).text == "hello"
    with socket.create_server(("127.0.0.1", port)):
        pass


async def test_of_two_that_bound_one_port_the_second_to_listen_is_told() -> None:
    first = bind("127.0.0.1", 0)
    second = bind("127.0.0.1", first.getsockname()[1])
    async with served(APP, first):
        with pytest.raises(InputError, match="Address already in use; choose another --port"):
            async with served(APP, second):
                pass


async def test_without_a_listener_nothing_is_served() -> None:
    async with served(APP, None):
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_a_running_request_finish_and_run_returns(number: signal.Signals, tmp_path: Path) -> None:
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        asking = None
        while asking is None:
            try:
                asking = socket.create_connection(("127.0.0.1", port), timeout=60)
            except ConnectionRefusedError:
                assert process.poll() is None
        with asking:
            asking.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert process.stdout.readline() == "begun\n"
            os.kill(process.pid, number)
            process.stdin.write("\n")
            process.stdin.flush()
            answer = b""
            while part := asking.recv(4096):
                answer += part
        assert answer.endswith(b"whole")
        assert process.stdout.readline() == "returned\n"
        assert process.wait(60) == 0


@pytest.mark.parametrize("path", ["/healthz/", "//healthz", "/healthz/?a"])
async def test_a_slash_too_many_is_not_found_and_no_redirect(path: str) -> None:
    async def healthz(_: Request) -> Response:
        return Response()

    transport = httpx.ASGITransport(without_redirects([Route("/healthz", healthz)]))
    async with httpx.AsyncClient(transport=transport, base_url="http://other.example") as client:
        assert (await client.get("/healthz")).status_code == 200
        answer = await client.get(f"http://other.example{path}")
    assert (answer.status_code, answer.headers.get("location")) == (404, None)


OPEN_METRICS = "application/openmetrics-text"
ACCEPTS = [
    *(f"{kind};version={version}" for kind in (OPEN_METRICS, "text/plain")
      for version in ("x.y", "1.x", "", "1.0.0.0", "\xff", "99999999999999999999", "-1", "1.0.0;escaping=nope")),
    *(f"{OPEN_METRICS};q={weight}" for weight in ("x", "nan", "", "-1")),
    ";;;,,=", "\x00", f"{OPEN_METRICS}," * 1000,
]  # fmt: skip


@pytest.mark.parametrize("accept", ACCEPTS, ids=range(len(ACCEPTS)))
def test_metrics_are_told_whatever_their_reader_accepts(accept: str) -> None:
    registry = CollectorRegistry()
    Counter("seen", "help", registry=registry).inc()
    assert b"seen_total 1.0" in exposition(registry, accept).body
