"""Fetching data from a hub on this machine: pinned, checked, and never silently another one."""

import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from golongrl.evaluation.fetch import RECORD, FetchError, fetch
from golongrl.evaluation.sources import DataFiles, EvalSource

COMMIT, NEWER = "a" * 40, "b" * 40
ROWS = b'{"id": 1}\n{"id": 2}\n'
SUM = hashlib.sha256(ROWS).hexdigest()


def packed(member: str, content: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(member, content)
    return archive.getvalue()


@dataclass
class Hub:
    """Repositories (each with its files, by revision) behind the interfaces of three hubs."""

    url: str = ""
    newest: str = COMMIT
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    gated: bool = False

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        path, _, query = path.partition("?")
        parts = path.strip("/").split("/")
        match parts:
            case ["api", "datasets", owner, name, *rest]:
                revision = rest[1] if rest else self.newest
                return self._info(f"{owner}/{name}", revision)
            case ["datasets", owner, name, "resolve", revision, *file]:
                content = self.files[f"{owner}/{name}"]["/".join(file)]
                head = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": revision}
                return 200, head, content
            case ["api", "v1", "datasets", owner, name, "repo", "tree"]:
                files = [{"Path": file, "Type": "blob"} for file in self.files[f"{owner}/{name}"]]
                return 200, {}, json.dumps({"Data": {"Files": files}}).encode()
            case ["api", "v1", "datasets", owner, name, "repo"]:
                return 200, {}, self.files[f"{owner}/{name}"][query.rpartition("FilePath=")[2]]
            case ["pypi", name, "1.0", "json"]:
                urls = [{"filename": file, "url": f"{self.url}/wheels/{name}/{file}"} for file in self.files[name]]
                return 200, {}, json.dumps({"urls": urls}).encode()
            case ["wheels", name, file]:
                return 200, {}, self.files[name][file]
        return 404, {}, b"{}"

    def _info(self, repo: str, revision: str) -> tuple[int, dict[str, str], bytes]:
        if self.gated:
            return 403, {"X-Error-Code": "GatedRepo"}, b"{}"
        if repo not in self.files:
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        if revision not in (COMMIT, NEWER):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        siblings = [{"rfilename": name} for name in self.files[repo]]
        return 200, {}, json.dumps({"id": repo, "sha": revision, "siblings": siblings}).encode()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = hub.answer(self.path)
            if self.command == "GET":
                hub.asked.append(self.path)
            self.send_response_only(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - the base class's names

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    for name in ("HF_ENDPOINT", "GOLONGRL_MODELSCOPE", "GOLONGRL_PYPI"):
        monkeypatch.setenv(name, hub.url)
    hub.files = {
        "org/plain": {"README.md": b"x", "train.jsonl": ROWS},
        "org/zipped": {"data.zip": packed("data/qa.jsonl", ROWS)},
        "scope/frames": {"test.jsonl": ROWS},
        "wheelhouse": {"wheelhouse-1.0-py3-none-any.whl": packed("pkg/data/memory.jsonl", ROWS)},
    }
    yield hub
    server.shutdown()
    thread.join()
    server.server_close()


PLAIN = EvalSource("plain", "org/plain", ("train*.jsonl",), 2)
ALL = [
    PLAIN,
    EvalSource("qa", "org/zipped", ("data.zip",), 2, member="data/qa.jsonl"),
    EvalSource("frames", "scope/frames", ("test.jsonl",), 2, hub="modelscope"),
    EvalSource("memory", "wheelhouse", ("*.whl",), 2, member="pkg/data/memory.jsonl", hub="pypi", revision="1.0"),
]


def get(folder: Path, *sources: EvalSource, **revisions: str) -> list[str]:
    said: list[str] = []
    fetch(sources or [PLAIN], folder, said.append, {name.replace("_", "/"): text for name, text in revisions.items()})
    return said


def test_every_hub_and_every_kind_of_file(hub, tmp_path) -> None:
    get(tmp_path, *ALL)
    with DataFiles.find(tmp_path, ALL) as data:
        assert [data.rows(source.name) for source in ALL] == [2, 2, 2, 2]
    record = json.loads((tmp_path / RECORD).read_text())
    assert record["org/plain"] == {"revision": COMMIT, "files": {"train.jsonl": SUM}}
    assert not list(tmp_path.rglob("*.zip"))
    assert not list(tmp_path.rglob("*.whl"))
    downloads = len([path for path in hub.asked if "resolve" in path or "FilePath" in path or "wheels" in path])
    assert all("here already" in line for line in get(tmp_path, *ALL))
    assert len([p for p in hub.asked if "resolve" in p or "FilePath" in p or "wheels" in p]) == downloads == 4


def test_a_first_fetch_pins_what_the_next_one_gets(hub, tmp_path) -> None:
    get(tmp_path)
    hub.newest = NEWER
    (tmp_path / "org/plain/train.jsonl").unlink()
    assert f"revision {COMMIT}" in get(tmp_path)[0]
    assert f"revision {NEWER}" in get(tmp_path, org_plain=NEWER)[0]
    # The same revision with another content: somebody changed what must not change.
    hub.files["org/plain"]["train.jsonl"] = ROWS.replace(b"2", b"3")
    (tmp_path / "org/plain/train.jsonl").unlink()
    with pytest.raises(FetchError, match=r"org/plain train\.jsonl: sha256 differs from the first fetch"):
        get(tmp_path)


def test_a_file_that_was_changed_here_is_fetched_again(hub, tmp_path) -> None:
    get(tmp_path)
    (tmp_path / "org/plain/train.jsonl").write_bytes(b'{"id": 1}\n{"id": 9}\n')
    get(tmp_path)
    assert (tmp_path / "org/plain/train.jsonl").read_bytes() == ROWS


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (replace(PLAIN, revision="c" * 40), f"org/plain: the hub has no revision {'c' * 40}"),
        (replace(PLAIN, repo="org/none"), "org/none: the hub has no such data set"),
        (replace(PLAIN, rows=3), "plain: 2 rows, published are 3; is it another revision?"),
        (replace(PLAIN, sha256=("0" * 64,)), rf"org/plain train\.jsonl: sha256 {SUM} differs from the published 000"),
        (replace(PLAIN, files=("test*.parquet",)), r"org/plain: no file test\*\.parquet for plain in this revision"),
        (replace(ALL[1], member="data/other.jsonl"), r"org/zipped data\.zip: no whole data/other\.jsonl"),
        (replace(ALL[3], revision="2.0"), "wheelhouse: no such repository or revision"),
    ],
)
def test_what_is_not_what_was_published_is_one_line(hub, tmp_path, source, said) -> None:
    with pytest.raises(FetchError, match=said) as caught:
        get(tmp_path, source)
    assert "\n" not in str(caught.value)


def test_a_gated_data_set_says_what_to_do(hub, tmp_path) -> None:
    hub.gated = True
    gated = replace(PLAIN, gated=True, note="accept its terms on the hub and set HF_TOKEN")
    with pytest.raises(FetchError, match="org/plain: the hub refuses access; accept its terms"):
        get(tmp_path, gated)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_one_line_and_leaves_nothing_half_fetched(tmp_path, number) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hub:
        hub.settimeout(120)
        environment = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{hub.getsockname()[1]}"}
        words = [sys.executable, "-m", "golongrl", "eval", "fetch", "aime24", "--data", str(tmp_path / "data")]
        process = subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)
        asked, _ = hub.accept()  # and never answered
        with asked:
            process.send_signal(number)
            _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert said.strip() == (
        f"error: stopped by {number.name}; run the same command again: what is here already is not fetched again"
    )
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]
