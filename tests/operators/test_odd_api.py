"""An API server, or a proxy before it, that answers with what is no object of the Kubernetes API."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import structlog
import yaml

from golongrl.kubernetes import kinds
from golongrl.kubernetes.cluster import Cluster, connect
from golongrl.kubernetes.cluster_errors import ClusterError, ClusterMissingError
from golongrl_operator.watch import run_changed, watch

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
    "not-found-by-a-proxy": (404, "text/html", b"<html>404 Not Found</html>"),
    "not-found-in-json": (404, "application/json", b'{"error": "no route"}'),
    "bad-gateway": (502, "text/html", b"<html>\n<h1>Bad gateway</h1>\n</html>"),
    "long-failure": (500, "application/json", json.dumps({"message": "x\n" * 500_000}).encode()),
    "odd-failure": (500, "application/json", b'{"message": 5}'),
}
# Of a list, code 200.
NO_LIST: dict[str, bytes] = {
    "no-items": b'{"kind": "Pod", "metadata": {}}',
    "null-without-a-kind": b'{"items": null}',
    "items-are-a-text": b'{"kind": "PodList", "items": "x"}',
    "a-part": b'{"kind": "PodList", "metadata": {"continue": "abc", "remainingItemCount": 3}, "items": []}',
}


class OddServer:
    """Answers every request in one way, and counts them."""

    def __init__(self) -> None:
        self.answer = ODD["page"]
        self.headers: dict[str, str] = {}
        self.then: tuple[int, str, bytes] | None = None
        """What it answers from the second request on, if that is something else."""
        self.asked = 0
        odd = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                odd.asked += 1
                code, kind, body = odd.answer if odd.then is None or odd.asked == 1 else odd.then
                self.send_response(code)
                for name, value in odd.headers.items():
                    self.send_header(name, value)
                if kind:
                    self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                # The client hangs up on what is too long.
                with suppress(ConnectionError):
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
    "list": lambda calls: calls.list_objects(kinds.POD),
    "get": lambda calls: calls.get(kinds.POD, "x"),
    "exists": lambda calls: calls.exists(kinds.SECRET, "x"),
    "apply": lambda calls: calls.apply(kinds.JOB, {"metadata": {"name": "x"}}),
    "delete": lambda calls: calls.delete(kinds.JOB, "x"),
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
    assert len(line) < 2500
    assert not any(word in line for word in ("ContentTypeError", "JSONDecodeError", "mimetype"))
    if answer == "failure":
        assert line.endswith(": 500 no etcd")


@pytest.mark.parametrize("answer", NO_LIST)
async def test_what_is_no_whole_list_is_never_an_empty_one(odd: OddServer, answer: str) -> None:
    odd.answer = (200, "application/json", NO_LIST[answer])
    async with connect() as calls:
        with pytest.raises(ClusterError, match="list of pods: the answer is "):
            await calls.list_objects(kinds.POD)


async def test_what_does_not_exist_is_what_the_api_server_itself_says(odd: OddServer) -> None:
    said = b'{"kind": "Status", "status": "Failure", "reason": "NotFound", "message": "no x", "code": 404}'
    async with connect() as calls:
        odd.answer = (404, "application/json", said)
        assert not await calls.exists(kinds.SECRET, "x")
        for body in (said, b"404 page not found\n"):
            odd.answer = (404, "text/plain", body)
            with pytest.raises(ClusterMissingError):
                await calls.list_objects(kinds.RAY_JOB)
        odd.answer = (200, "application/json", b'{"metadata": {"name": "x"}}')
        assert await calls.exists(kinds.SECRET, "x")
        for body in (b"{}", b'{"metadata": {"name": "y"}}', b'{"kind": "Status", "status": "Success"}'):
            odd.answer = (200, "application/json", body)
            with pytest.raises(ClusterError, match="Secret x: the answer is not JSON of the Kubernetes API"):
                await calls.exists(kinds.SECRET, "x")


@pytest.mark.parametrize("items", [b"", b', "items": null', b', "items": []'])
async def test_an_empty_list_of_names_has_no_items(odd: OddServer, items: bytes) -> None:
    """Real servers write null: the operator began no run where no ConfigMap of a run was."""
    odd.answer = (200, "application/json", b'{"kind": "PartialObjectMetadataList", "metadata": {}' + items + b"}")
    async with connect() as calls:
        assert await calls.names(kinds.CONFIG_MAP, "a=b") == set()


BUSY = (429, "application/json", b'{"kind": "Status", "message": "too many requests, please try again later"}')
FOUND = (200, "application/json", b'{"items": [], "metadata": {"name": "x"}}')


@pytest.mark.parametrize(("call", "code"), [("list", 429), ("exists", 503)])
async def test_a_busy_server_is_asked_again_when_it_says_so(odd: OddServer, call: str, code: int) -> None:
    odd.answer, odd.then, odd.headers = (code, *BUSY[1:]), FOUND, {"Retry-After": "1"}
    async with connect(call_s=120) as calls:
        await CALLS[call](calls)  # type: ignore[no-untyped-call]
    assert odd.asked == 2


@pytest.mark.parametrize("call", ["apply", "delete"])
async def test_what_writes_is_not_repeated_by_itself(odd: OddServer, call: str) -> None:
    """The operator's next pass does it: with the runs of then, and without holding up the others."""
    odd.answer, odd.headers = BUSY, {"Retry-After": "1"}
    async with connect(call_s=120) as calls:
        with pytest.raises(ClusterError, match="429 too many requests, please try again later; the API server has too"):
            await CALLS[call](calls)  # type: ignore[no-untyped-call]
    assert odd.asked == 1


@pytest.mark.parametrize("after", ["300", "", "-1", "x", "\u00b2", "1e9", "9" * 400, "Sun, 29 Nov 2026 10:00:00 GMT"])
async def test_a_pause_beyond_the_deadline_or_of_no_length_is_not_waited_for(odd: OddServer, after: str) -> None:
    odd.answer, odd.headers = BUSY, {"Retry-After": after} if after else {}
    async with connect(call_s=60) as calls:
        with pytest.raises(ClusterError, match="429 too many requests"):
            await calls.list_objects(kinds.POD)
    assert odd.asked == 1


EVENT = b'{"type": "ADDED", "object": {"metadata": {"name": "r", "generation": 1}}}'
# One line of a watch, and what the log says of it; nothing of a line that is an event.
LINES: dict[str, tuple[bytes, str]] = {
    "no-json": (b"<html>", "no event of the Kubernetes API: '<html>'"),
    "no-utf8": (b"\xff\xfe", "no event of the Kubernetes API"),
    "text": (b'"ADDED"', "no event of the Kubernetes API"),
    "null": (b"null", "no event of the Kubernetes API"),
    "list": (b"[]", "no event of the Kubernetes API"),
    "number": (b"5", "no event of the Kubernetes API"),
    "nothing-in-it": (b"{}", "no event of the Kubernetes API"),
    "type-is-a-number": (b'{"type": 5, "object": {}}', "no event of the Kubernetes API"),
    "object-is-a-text": (b'{"type": "ADDED", "object": "r"}', "no event of the Kubernetes API"),
    "object-is-null": (b'{"type": "MODIFIED", "object": null}', "no event of the Kubernetes API"),
    "deep": (b"[" * 100_000, "no event of the Kubernetes API"),
    "large-garbage": (b"x" * 5_000_000, "no event of the Kubernetes API"),
    "too-large": (b"x" * 17_000_000, "an event has more than"),
    "gone": (
        b'{"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old\\nversion"}}',
        "watch of trainingruns: 410 too old version;",
    ),
    "error": (b'{"type": "ERROR", "object": {"kind": "Status", "code": 500, "message": "no etcd"}}', "500 no etcd;"),
    "odd-error": (b'{"type": "ERROR", "object": {"code": "x", "message": 5}}', "watch of trainingruns: 0;"),
    "no-metadata": (b'{"type": "ADDED", "object": {}}', ""),
    "metadata-is-a-list": (b'{"type": "ADDED", "object": {"metadata": [], "status": 5}}', ""),
    "odd-generation": (b'{"type": "MODIFIED", "object": {"metadata": {"generation": "1"}, "status": {}}}', ""),
    "unknown-type": (b'{"type": "RENAMED", "object": {"metadata": {"name": "r"}}}', ""),
    "bookmark": (b'{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "5"}}}', ""),
    "large": (json.dumps({"type": "ADDED", "object": {"data": "x" * 5_000_000}}).encode(), ""),
    "blank": (b"  ", ""),
    "without-an-end": (EVENT, ""),
    "cut": (EVENT[:20], "no event of the Kubernetes API"),
    "followed-by-more": (b"5\n" + EVENT, "no event of the Kubernetes API: '5'"),
    "carriage-return": (EVENT + b"\r\n" + EVENT + b"\r\n", ""),
}


@pytest.mark.parametrize("line", LINES)
async def test_one_line_of_a_watch_ends_nothing(odd: OddServer, line: str) -> None:
    """Whatever it is, passes begin, the watch begins again, and the log has one line for it."""
    given, why = LINES[line]
    changed = asyncio.Event()
    odd.answer = (200, "application/json", EVENT + b"\n" + given)
    with structlog.testing.capture_logs() as told:
        async with connect() as calls, asyncio.timeout(120):
            watching = asyncio.create_task(watch(calls, kinds.TRAINING_RUN, None, run_changed, changed, 0.01))
            for _ in range(3):
                await changed.wait()
                changed.clear()
            odd.answer = (200, "application/json", EVENT + b"\n")
            begun = odd.asked
            while odd.asked < begun + 3:
                await asyncio.sleep(0.02)
            assert not watching.done()
            watching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await watching
    warnings = {entry["error"] for entry in told if entry["log_level"] == "warning"}
    assert len(warnings) == bool(why), warnings
    assert all(why in warning and "\n" not in warning and len(warning) < 600 for warning in warnings)


@pytest.mark.parametrize("answer", ODD)
async def test_watches_begin_again_after_an_odd_answer(odd: OddServer, answer: str) -> None:
    odd.answer = ODD[answer]
    changed = asyncio.Event()
    with structlog.testing.capture_logs() as told:
        async with connect() as calls, asyncio.timeout(240):
            watching = asyncio.create_task(watch(calls, kinds.RAY_JOB, None, lambda _: True, changed, 0.01))
            while odd.asked < 3:
                assert not watching.done()
                await asyncio.sleep(0.02)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
    assert len(told) == (answer != "nothing"), told


@pytest.mark.parametrize(
    ("event", "changed"),
    [
        ({"type": "MODIFIED", "object": {"metadata": {"generation": 2}, "status": {"observedGeneration": 2}}}, False),
        ({"type": "MODIFIED", "object": {"metadata": {"generation": 3}, "status": {"observedGeneration": 2}}}, True),
        ({"type": "DELETED", "object": {"metadata": {"generation": 2}, "status": {"observedGeneration": 2}}}, True),
        ({"type": "ADDED", "object": {"metadata": {"generation": 1}}}, True),
        ({"type": "ADDED", "object": {"metadata": {"generation": True}, "status": {"observedGeneration": 1}}}, True),
    ],
)
def test_the_operator_s_own_status_begins_no_pass(event: dict[str, Any], changed: bool) -> None:
    assert run_changed(event) is changed
