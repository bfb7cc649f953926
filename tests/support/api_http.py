"""The API server in memory on a port of this machine: requests, watches, and exec over a websocket."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from support.api_server import ApiServer

# Channels of exec's websocket: standard output, standard error, and how it ended.
_STDOUT, _STDERR, _ENDED = b"\1", b"\2", b"\3"


@contextmanager
def serving(server: ApiServer) -> Iterator[ApiServer]:
    """The server, for the time of the block, in a thread: tests without a loop use it too."""
    started, loops = threading.Event(), list[tuple[asyncio.AbstractEventLoop, asyncio.Event]]()

    async def main() -> None:
        runner = web.AppRunner(_app(server), access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        stop = asyncio.Event()
        loops.append((asyncio.get_running_loop(), stop))
        started.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=asyncio.run, args=(main(),), daemon=True)
    thread.start()
    assert started.wait(120)
    ((loop, stop),) = loops
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(120)


def _app(server: ApiServer) -> web.Application:
    async def handle(request: web.Request) -> web.StreamResponse:
        server.credentials.add(request.headers.get("Authorization", ""))
        if request.path.endswith("/exec"):
            return await _execute(server, request)
        if request.query.get("watch") in ("1", "true"):
            return await _watch(server, request)
        code, found = server.answer(
            request.method,
            request.path_qs,
            request.headers.get("Content-Type", ""),
            await request.read(),
            request.headers.get("Accept", ""),
        )
        return web.json_response(found, status=code)

    app = web.Application(client_max_size=1 << 26)
    app.router.add_route("*", "/{path:.*}", handle)
    return app


async def _watch(server: ApiServer, request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    loop, events = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any]]()
    # Tests change objects in threads of their own.
    end = server.watch(request.path_qs, lambda event: loop.call_soon_threadsafe(events.put_nowait, event) and None)
    try:
        async with asyncio.timeout(float(request.query.get("timeoutSeconds", 3600))):
            while True:
                await response.write(json.dumps(await events.get()).encode() + b"\n")
    except (TimeoutError, ConnectionError):
        return response
    finally:
        end()


async def _execute(server: ApiServer, request: web.Request) -> web.StreamResponse:
    pod, words = request.path.split("/")[-2], request.query.getall("command")
    if code := server.refuse.get(("pods/exec", "get")):
        return web.json_response({"message": "pods/exec is forbidden"}, status=code)
    if server.commands is None:
        return web.json_response({"message": "unable to upgrade connection"}, status=500)
    code, out, err = await asyncio.to_thread(server.commands, pod, request.query["container"], words)
    socket = web.WebSocketResponse(protocols=("v4.channel.k8s.io",))
    await socket.prepare(request)
    await socket.send_bytes(_STDOUT + out.encode())
    await socket.send_bytes(_STDERR + err.encode())
    causes = {"causes": [{"reason": "ExitCode", "message": str(code)}]}
    failed = {"status": "Failure", "message": f"command terminated with exit code {code}", "details": causes}
    await socket.send_bytes(_ENDED + json.dumps(failed if code else {"status": "Success"}).encode())
    await socket.close()
    return socket
