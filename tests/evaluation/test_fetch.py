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

from golongrl import files
from golongrl.errors import InputError
from golongrl.evaluation import fetch as fetching
from golongrl.evaluation import hubs
from golongrl.evaluation.fetch import RECORD, FetchError, fetch
from golongrl.evaluation.sources import DataFiles, EvalSource

COMMIT, NEWER = "a" * 40, "b" * 40
ROWS = b'{"id": 1}\n{"id": 2}\n'
SUM = hashlib.sha256(ROWS).hexdigest()


def packed(member: str, content: bytes, how: int = zipfile.ZIP_STORED) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", how) as file:
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
    # What is answered first, by the end of the path: (status, headers, body), taken one after the other.
    instead: dict[str, list[tuple[int, dict[str, str], bytes]]] = field(default_factory=dict)
    told: dict[str, list[dict[str, str]]] = field(default_factory=dict)

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        path, _, query = path.partition("?")
        for end, answers in self.instead.items():
            if path.endswith(end) and answers:
                return answers.pop(0)
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
            hub.told.setdefault(self.path.partition("?")[0], []).append(dict(self.headers))
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
    monkeypatch.setattr(fetching, "BOUNDS", replace(fetching.BOUNDS, pause_s=0))
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


def test_an_archive_that_a_person_has_put_there_stays(hub, tmp_path) -> None:
    kept = tmp_path / "org" / "zipped" / "data.zip"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"mine")
    (tmp_path / "archives.0123abcd.tmp").mkdir()  # of a fetch that was killed
    get(tmp_path, ALL[1])
    with pytest.raises(FetchError, match=r"no whole data/other\.jsonl"):
        get(tmp_path, replace(ALL[1], member="data/other.jsonl"))
    assert kept.read_bytes() == b"mine"
    assert not list(tmp_path.glob("archives*"))


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


FILE = "org/plain/train.jsonl"
HF = ("https://huggingface.co", hubs.hosts("huggingface"))


@pytest.mark.parametrize(
    ("url", "asked", "why"),
    [
        ("https://huggingface.co/x", HF[0], None),
        ("https://cdn-lfs-us-1.hf.co/x?Signature=y", HF[0], None),
        ("https://evilhf.co/x", HF[0], "leads to evilhf.co"),
        ("https://hf.co.evil.example/x", HF[0], "leads to hf.co.evil.example"),
        ("https://huggingface.co@evil.example/x", HF[0], "leads to evil.example"),
        ("https://169.254.169.254/latest", HF[0], "leads to 169.254.169.254"),
        ("http://huggingface.co/x", HF[0], "not https"),
        ("ftp://hf.co/x", HF[0], "not https"),
        ("http://mirror:8000/x", "http://mirror:8000", None),
        ("http://mirror:8001/x", "http://mirror:8000", "not https"),
    ],
)
def test_only_the_hub_and_its_hosts_are_asked(url: str, asked: str, why: str | None) -> None:
    found = hubs.refusal(url, asked, HF[1])
    assert found is None if why is None else why in str(found)


def test_a_mirrors_own_host_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(hubs.HOSTS_VARIABLE, "files.example, other.example")
    assert hubs.refusal("https://a.files.example/x", HF[0], hubs.hosts("pypi")) is None


@pytest.mark.parametrize("place", ["http://127.0.0.1:9/x", "https://127.0.0.1:9/x", "https://elsewhere.example/x"])
@pytest.mark.parametrize("end", ["/train.jsonl", "api/datasets/org/plain"])
def test_a_redirect_to_another_host_is_not_followed(hub, tmp_path, place, end) -> None:
    hub.instead = {end: [(302, {"Location": place}, b"")]}
    with pytest.raises(FetchError, match=r"org/plain.*: the address leads to .*(not https|GOLONGRL_FETCH_HOSTS=)"):
        get(tmp_path / "data")
    assert not (tmp_path / "data").exists() or not list((tmp_path / "data").rglob("*.jsonl"))


def test_a_redirect_within_the_hub_is_followed_a_bounded_number_of_times(hub, tmp_path) -> None:
    here = (302, {"Location": f"{hub.url}/datasets/org/plain/resolve/{COMMIT}/train.jsonl"}, b"")
    hub.instead = {"/train.jsonl": [here] * 3}
    get(tmp_path)
    hub.instead = {"/train.jsonl": [here] * 99}
    (tmp_path / FILE).unlink()
    with pytest.raises(FetchError, match="redirect"):
        get(tmp_path)


@pytest.mark.parametrize(
    "name", ["../../train.jsonl", "/tmp/train.jsonl", "a/../train.jsonl", "a\\train.jsonl", "a\ntrain.jsonl"]
)
def test_a_file_whose_name_leads_out_of_the_folder_is_refused(hub, tmp_path, name) -> None:
    hub.files["org/plain"][name] = ROWS
    with pytest.raises(FetchError, match=r"org/plain: the hub lists .* not a path inside a repository") as caught:
        get(tmp_path / "data")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.jsonl"))


def listed(size: int | None, sha256: str | None = None) -> tuple[int, dict[str, str], bytes]:
    sibling = {"rfilename": "train.jsonl", "size": size, "lfs": {"sha256": sha256} if sha256 else None}
    return 200, {}, json.dumps({"sha": COMMIT, "siblings": [sibling]}).encode()


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (listed(len(ROWS) - 1), f"more than the {len(ROWS) - 1} bytes expected"),
        (listed(len(ROWS) + 1), f"{len(ROWS)} bytes came of the {len(ROWS) + 1} that the hub lists"),
        (listed(len(ROWS), "0" * 64), "differs from the one that the hub lists"),
        ((200, {}, b"[]"), "the list of files at 127.0.0.1 cannot be read"),
        ((200, {}, b"{"), "not JSON"),
        ((500, {}, b""), "127.0.0.1 answered 500"),
    ],
)
def test_what_differs_from_the_hubs_list_is_not_kept(hub, tmp_path, first, said) -> None:
    hub.instead = {"api/datasets/org/plain": [first]}
    with pytest.raises(FetchError, match=said):
        get(tmp_path / "data")
    assert not list(tmp_path.rglob("*"))


def test_a_wrong_checksum_leaves_what_was_there(hub, tmp_path) -> None:
    get(tmp_path)
    with pytest.raises(FetchError, match="differs from the published"):
        get(tmp_path, replace(PLAIN, sha256=("0" * 64,), revision=NEWER))
    assert (tmp_path / FILE).read_bytes() == ROWS
    assert json.loads((tmp_path / RECORD).read_text())["org/plain"]["revision"] == COMMIT


def broken(etag: str, size: int = 5) -> tuple[int, dict[str, str], bytes]:
    return 200, {"ETag": etag, "Content-Length": str(len(ROWS))}, ROWS[:size]


def test_a_connection_that_breaks_is_taken_up_where_it_broke(hub, tmp_path) -> None:
    rest = 206, {"ETag": '"x"', "Content-Range": f"bytes 5-{len(ROWS) - 1}/{len(ROWS)}"}, ROWS[5:]
    hub.instead = {"/train.jsonl": [broken('"x"'), rest]}
    get(tmp_path)
    assert (tmp_path / FILE).read_bytes() == ROWS
    asked = hub.told[f"/datasets/org/plain/resolve/{COMMIT}/train.jsonl"]
    assert [headers.get("Range") for headers in asked] == [None, "bytes=5-"]
    assert asked[1]["If-Range"] == '"x"'


@pytest.mark.parametrize("etag", ['W/"x"', '"x"'])
def test_it_begins_again_where_the_server_sends_the_whole_file(hub, tmp_path, etag) -> None:
    wrong_place = 206, {"Content-Range": f"bytes 0-{len(ROWS) - 1}/{len(ROWS)}"}, ROWS
    hub.instead = {"/train.jsonl": [broken(etag), wrong_place, broken(etag, 9)][1 if etag == '"x"' else 0 :]}
    get(tmp_path)
    assert (tmp_path / FILE).read_bytes() == ROWS


def test_it_gives_up_after_some_tries(hub, tmp_path) -> None:
    hub.instead = {"/train.jsonl": [broken('"x"')] * 99}
    with pytest.raises(FetchError, match=r"org/plain train\.jsonl: "):
        get(tmp_path / "data")
    assert len(hub.instead["/train.jsonl"]) == 99 - fetching.BOUNDS.tries
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        ({"most": 7}, "more than the 7 bytes expected"),
        ({"window_s": 0, "least": 1000}, f"only {len(ROWS)} bytes came in"),
        ({"longest_s": 0}, "not whole after 0 s"),
    ],
)
def test_a_file_has_bounds_of_size_pace_and_time(hub, tmp_path, monkeypatch, bounds, said) -> None:
    monkeypatch.setattr(fetching, "BOUNDS", replace(fetching.BOUNDS, **bounds))
    with pytest.raises(FetchError, match=said):
        get(tmp_path / "data")
    assert not list(tmp_path.rglob("*"))


def test_an_archive_that_unpacks_to_too_much_is_refused(hub, tmp_path, monkeypatch) -> None:
    hub.files["org/zipped"]["data.zip"] = packed("data/qa.jsonl", b" " * 5000, zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(fetching, "BOUNDS", replace(fetching.BOUNDS, most=4000))
    with pytest.raises(FetchError, match=r"data/qa\.jsonl: unpacks to more than 4000 bytes"):
        get(tmp_path, ALL[1])


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("flip", [0, 50, -5])
def test_a_damaged_archive_is_one_line(hub, tmp_path, flip, how) -> None:
    archive = bytearray(packed("data/qa.jsonl", ROWS * 50, how))
    archive[flip] ^= 0xFF
    hub.files["org/zipped"]["data.zip"] = bytes(archive)
    with pytest.raises(FetchError, match=r"org/zipped data\.zip: no whole data/qa\.jsonl"):
        get(tmp_path, ALL[1])


def test_the_hubs_token_goes_to_the_hub_alone(hub, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 20)
    get(tmp_path, *ALL)
    with_token = {path for path, asked in hub.told.items() if any("Authorization" in headers for headers in asked)}
    assert with_token == {path for path in hub.told if "datasets/org" in path}


def test_one_fetch_at_a_time_in_a_folder(hub, tmp_path) -> None:
    with files.locked_folder(tmp_path, ".fetch.lock"), pytest.raises(InputError, match=r"another fetch \(pid \d+\)"):
        get(tmp_path)
    get(tmp_path)


def test_a_revision_of_what_is_not_fetched_is_refused(hub, tmp_path) -> None:
    with pytest.raises(InputError, match="--revision org/plane: nothing is fetched from it; it is of org/plain"):
        get(tmp_path / "data", PLAIN, org_plane=COMMIT)
    assert not (tmp_path / "data").exists()


def test_a_hub_that_does_not_answer_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(FetchError, match=r"org/plain: 127\.0\.0\.1 does not answer: "):
        get(tmp_path / "data", PLAIN)
