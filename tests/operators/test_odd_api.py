"""An API server, or a proxy before it, that answers with what is no object of the Kubernetes API."""

import asyncio
import gc
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import kopf
import pytest
import yaml

from golongrl.kubernetes import cluster
from golongrl.kubernetes.cluster import Cluster, connect
from golongrl.kubernetes.kubeconfig import ClusterError
from golongrl_operator.app import Loop, _watch
from golongrl_operator.kube import Kube
from support.training_runs import SITE

# Code, content type, body.
ODD: dict[str, tuple[int, str, bytes]] = {
    "page": (200, "text/html", b"<html>log in</html>"),
    "page-as-json": (200, "application/json", b"<html>"),
    "protobuf": (200, "application/vnd.kubernetes.protobuf", b"k8s\x00"),
    "no-type": (200, "", b'{"items": []}'),
    "nothing": (200, "application/json", b""),
    "null": (200, "application/json", b"null"),
    "cut": (200, "application/json", b'{"kind": "PodList", "ite'),
    "bytes": (200, "application/json", b"\xff\xfe\x00"),
    "deep": (200, "application/json", b"[" * 100_000),
    "failure": (200, "application/json", b'{"kind": "Status", "status": "Failure", "message": "no etcd", "code": 500}'),
    "bad-gateway": (502, "text/html", b"<html>\n<h1>Bad gateway</h1>\n</html>"),
    "odd-failure": (500, "application/json", b'{"message": 5}'),
}


class OddServer:
    """Answers every request in one way, and counts them."""

    def __init__(self) -> None:
        self.answer = ODD["page"]
        self.asked = 0
        odd = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                odd.asked += 1
                code, kind, body = odd.answer
                self.send_response(code)
                if kind:
                    self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        for verb in ("GET", "PATCH", "POST", "DELETE"):
            setattr(Handler, f"do_{verb}", Handler.answer)
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OddServer]:
    server = OddServer()
    thread = threading.Thread(target=server.http.serve_forever, args=(0.01,))
    thread.start()
    config = {
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x", "namespace": "rl"}}],
        "clusters": [{"name": "x", "cluster": {"server": f"http://127.0.0.1:{server.http.server_port}"}}],
        "users": [{"name": "x", "user": {"token": "t"}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    yield server
    server.http.shutdown()
    thread.join()
    server.http.server_close()


CALLS = {
    "list": lambda calls: calls.list_objects(cluster.POD),
    "get": lambda calls: calls.get(cluster.POD, "x"),
    "exists": lambda calls: calls.exists(cluster.SECRET, "x"),
    "apply": lambda calls: calls.apply(cluster.JOB, {"metadata": {"name": "x"}}),
    "delete": lambda calls: calls.delete(cluster.JOB, "x"),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("answer", ODD)
async def test_an_odd_answer_is_one_line_and_never_success(odd: OddServer, answer: str, call: str) -> None:
    odd.answer = ODD[answer]

    async def ask(calls: Cluster) -> Any:
        return await CALLS[call](calls)

    async with connect() as calls:
        with pytest.raises(ClusterError) as error:
            await ask(calls)
    line = str(error.value)
    assert line.startswith("API server http://127.0.0.1:")
    assert "\n" not in line
    assert not any(word in line for word in ("ContentTypeError", "JSONDecodeError", "mimetype"))
    if answer == "failure":
        assert line.endswith(": 500 no etcd")


@pytest.mark.parametrize("answer", ["page", "null"])
async def test_watches_begin_again_after_an_odd_answer(
    odd: OddServer, answer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a thread, because at its end kopf waits for every task of its loop."""
    odd.answer = ODD[answer]
    stop, begun, real = threading.Event(), list[bool](), kopf.operator

    async def counted(**given: Any) -> None:
        begun.append(True)
        await real(**given)

    monkeypatch.setattr(kopf, "operator", counted)

    async def main() -> None:
        async with connect() as calls:
            await _watch(Loop(SITE, Kube(calls), pass_s=0.05), stop)

    watching = asyncio.create_task(asyncio.to_thread(asyncio.run, main()))
    async with asyncio.timeout(240):
        while len(begun) < 2:
            assert not watching.done()
            await asyncio.sleep(0.02)
        stop.set()
        await watching
    # kopf leaves tasks whose error nobody has read: they are told of here, and not in the middle of something else.
    gc.collect()
