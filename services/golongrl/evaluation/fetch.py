"""`golongrl eval fetch`: the benchmarks' data from where it is published, checked, into one folder.

Invariants: what a pinned revision or checksum does not cover is written down (`fetched.json`), and the next fetch gets
the same or fails; a file appears under its name only when it is whole, and an archive that is unpacked never does; a
row count that is not the published one is an error, because a benchmark with other rows has another score. Nothing is
downloaded at any other time.
"""

import asyncio
import errno
import hashlib
import json
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Final

from golongrl import files
from golongrl.errors import InputError, writing_to
from golongrl.evaluation import hubs
from golongrl.evaluation.download import DownloadBounds, FileDownload
from golongrl.evaluation.errors import EvaluationError
from golongrl.evaluation.hubs import FetchError
from golongrl.evaluation.sources import DataFiles, EvalSource
from golongrl.reading import read_text

RECORD: Final = "fetched.json"
BOUNDS: Final = DownloadBounds()
_LOCK: Final = ".fetch.lock"
_ARCHIVES: Final = "archives"
# Without any byte for this long a download is given up; a whole one may take hours.
_SILENCE_S: Final = 60.0
_CHUNK: Final = 1 << 20
_MOST_RECORD: Final = 64 << 20


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
    repos = {source.repo for source in sources}
    if unknown := sorted(set(revisions) - repos):
        raise InputError(f"--revision {unknown[0]}: nothing is fetched from it; it is of {', '.join(sorted(repos))}")
    with _locked(folder) as made:
        for place in {folder / source.repo for source in sources}:
            for below in (place, *place.rglob("*/")):
                files.sweep_staged(below, 0)
        files.sweep(folder, _ARCHIVES)
        _fetch_all(sources, folder, say, revisions, made)


@contextmanager
def _locked(folder: Path) -> Iterator[files.Made]:
    with ExitStack() as stack:
        try:
            with writing_to(f"--data {folder}"):
                made = stack.enter_context(files.locked_folder(folder, _LOCK))
        except files.LockHeldError as error:
            raise InputError(f"--data {folder}: another fetch ({error}) writes there; wait for it to end") from error
        yield made


def _fetch_all(
    sources: Sequence[EvalSource],
    folder: Path,
    say: Callable[[str], None],
    revisions: Mapping[str, str],
    made: files.Made,
) -> None:
    record = _read_record(folder)
    for repo in dict.fromkeys(source.repo for source in sources):
        mine = [source for source in sources if source.repo == repo]
        before = record.get(repo)
        pinned = revisions.get(repo) or next((one.revision for one in mine if one.revision), None)
        if before is not None and _whole(folder, repo, before, mine) and pinned in (None, before.revision):
            say(f"{repo}: here already, revision {before.revision}")
        else:
            got = asyncio.run(_get(repo, mine, folder, pinned or (before.revision if before else None), before, made))
            record[repo] = got
            _write_record(folder, record)
            made.keep()
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


@dataclass(frozen=True, slots=True)
class _Sums:
    """The sha256 that are known of a repository's files."""

    sources: Sequence[EvalSource]
    names: Sequence[str]
    revision: str
    before: FetchedSource | None

    def fault(self, name: str, found: str) -> str | None:
        """What is wrong with the sha256 of a file."""
        for source in self.sources:
            for chosen, expected in zip(source.chosen(self.names), source.sha256, strict=False):
                if chosen == name and found != expected:
                    return f"sha256 {found} differs from the published {expected}"
        before = self.before
        if before is not None and before.revision == self.revision and before.files.get(name, found) != found:
            return f"sha256 differs from the first fetch of revision {self.revision}"
        return None


def _check_rows(folder: Path, sources: Sequence[EvalSource]) -> None:
    for source in sources:
        with DataFiles.find(folder, [source]) as data:
            rows = data.rows(source.name)
        if rows != source.rows:
            raise FetchError(f"{source.name}: {rows:,} rows, published are {source.rows:,}; is it another revision?")


async def _get(
    repo: str,
    sources: Sequence[EvalSource],
    folder: Path,
    revision: str | None,
    before: FetchedSource | None,
    made: files.Made,
) -> FetchedSource:
    """The files that hold these sources; members of archives are taken out, and the archives removed."""
    hub: hubs.Hub = sources[0].hub
    note = next((source.note for source in sources if source.gated), "")
    async with hubs.client(hub, _SILENCE_S) as http:
        listing = await hubs.listed(http, hub, repo, revision, note)
        wanted = _wanted(repo, sources, list(listing.files))
        archives = {name for source in sources if source.member for name in source.chosen(wanted)}
        sums, got = _Sums(sources, wanted, listing.revision, before), {}
        # A person may keep the archive itself under its name.
        scratch = files.scratch_name(folder / _ARCHIVES)
        places = {name: (scratch if name in archives else folder / repo) / name for name in wanted}
        try:
            for name, path in places.items():
                with writing_to(str(path)):
                    made.folder(path.parent)
                download = FileDownload(http, listing.files[name], hubs.token(hub), BOUNDS)
                got[name] = await download.run(path, f"{repo} {name}", partial(sums.fault, name))
            for source in sources:
                for name in source.chosen(wanted) if source.member else ():
                    _take_out(places[name], source.member, folder / repo / source.member, repo)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return FetchedSource(listing.revision, got)


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


def _take_out(archive: Path, member: str, path: Path, repo: str) -> None:
    if PurePosixPath(member).is_absolute() or ".." in PurePosixPath(member).parts:
        raise FetchError(f"{repo}: {member} is not a path inside an archive")
    with writing_to(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with (
                zipfile.ZipFile(archive) as packed,
                packed.open(member) as found,
                files.replacing(path) as staging,
                staging.open("wb") as file,
            ):
                _copy(found, file, f"{repo} {member}")
        # A damaged archive shows itself in any of these, and by an offset that no file has.
        except (
            KeyError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError
        ) as error:  # fmt: skip
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise
            raise FetchError(f"{repo} {archive.name}: no whole {member} in this archive") from error


def _copy(packed: IO[bytes], file: IO[bytes], what: str) -> None:
    size = 0
    while chunk := packed.read(_CHUNK):
        if (size := size + len(chunk)) > BOUNDS.most:
            raise FetchError(f"{what}: unpacks to more than {BOUNDS.most} bytes")
        file.write(chunk)


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
        found = json.loads(read_text(path, _MOST_RECORD))
        return {repo: FetchedSource(entry["revision"], dict(entry["files"])) for repo, entry in found.items()}
    except FileNotFoundError:
        return {}
    except (InputError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FetchError(f"{path}: cannot be read; remove it, and everything is checked again") from error


def _write_record(folder: Path, record: Mapping[str, FetchedSource]) -> None:
    entries = {repo: {"revision": got.revision, "files": dict(got.files)} for repo, got in sorted(record.items())}
    with writing_to(str(folder)):
        files.write_text(folder / RECORD, json.dumps(entries, indent=1) + "\n")
