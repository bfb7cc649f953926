"""One file from a hub to this machine, within bounds of size and time.

Invariants: a file appears under its name only when it is whole and has the size and checksum that are known of it; a
connection that breaks is taken up where it broke, a bounded number of times.
"""

import asyncio
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import httpx

from golongrl import files
from golongrl.bounded_http import AnswerTooLongError
from golongrl.errors import brief, writing_to
from golongrl.evaluation.hubs import FetchError, RemoteFile

_RANGE: Final = re.compile(r"bytes (\d+)-")


@dataclass(frozen=True, slots=True)
class DownloadBounds:
    """How much and how long; the defaults hold for the largest benchmark over a slow line."""

    most: int = 64 << 30
    """Bytes of a file whose size the hub does not say."""
    longest_s: float = 12 * 3600.0
    """Of a whole file."""
    window_s: float = 60.0
    """In every such time there must come at least `least` bytes."""
    least: int = 64 << 10
    tries: int = 4
    pause_s: float = 1.0
    """Before another try, times the number of those before."""


class FileDownload:
    """A file on its way; `run` gets it."""

    def __init__(
        self, http: httpx.AsyncClient, remote: RemoteFile, headers: Mapping[str, str], bounds: DownloadBounds
    ) -> None:
        self._http, self._remote, self._headers, self._bounds = http, remote, headers, bounds
        self._digest = hashlib.sha256()
        self._size = 0
        self._tag = ""

    async def run(self, path: Path, what: str, fault: Callable[[str], str | None]) -> str:
        """Get the file.

        Args:
            what: the file, for messages.
            fault: what is wrong with a sha256; None where nothing is.

        Returns:
            Its sha256.

        Raises:
            FetchError: it cannot be had, is too large or slow, or is not what was expected.
            NoSpaceError, InputError: it cannot be written.
        """
        with writing_to(str(path)), files.replacing(path) as staging:
            with staging.open("wb") as file:
                try:
                    async with asyncio.timeout(self._bounds.longest_s):
                        await self._all(file)
                except TimeoutError as error:
                    raise FetchError(f"{what}: not whole after {self._bounds.longest_s:g} s") from error
                except (httpx.HTTPError, httpx.InvalidURL) as error:
                    raise FetchError(f"{what}: {brief(error)}") from error
            found = self._digest.hexdigest()
            if wrong := fault(found):
                raise FetchError(f"{what}: {wrong}")
            if self._remote.sha256 not in (None, found):
                raise FetchError(f"{what}: sha256 {found} differs from the one that the hub lists")
        return found

    async def _all(self, file: BinaryIO) -> None:
        for tried in range(1, self._bounds.tries + 1):
            try:
                return await self._some(file)
            except (httpx.NetworkError, httpx.RemoteProtocolError):
                if tried == self._bounds.tries:
                    raise
                await asyncio.sleep(self._bounds.pause_s * tried)
        return None

    async def _some(self, file: BinaryIO) -> None:
        headers = dict(self._headers)
        if self._size and self._tag:
            headers |= {"Range": f"bytes={self._size}-", "If-Range": self._tag}
        async with self._http.stream("GET", self._remote.url, headers=headers) as answer:
            if not answer.is_success:
                raise FetchError(f"{answer.url.host} answered {answer.status_code} for {answer.url.path[:200]}")
            self._begin(file, answer)
            await self._body(file, answer)
        size = self._remote.size
        if size is not None and self._size < size:
            raise httpx.RemoteProtocolError(f"{self._size} bytes came of the {size} that the hub lists")

    def _begin(self, file: BinaryIO, answer: httpx.Response) -> None:
        """Behind what is here already if the server sends the rest of the same file, else from the start."""
        found = _RANGE.match(answer.headers.get("Content-Range", ""))
        if answer.status_code != 206 or found is None or int(found[1]) != self._size:
            file.seek(0)
            file.truncate()
            self._digest, self._size = hashlib.sha256(), 0
        tag = answer.headers.get("ETag", "")
        # A weak tag, or an encoding, does not promise the same bytes.
        self._tag = "" if tag.startswith("W/") or "Content-Encoding" in answer.headers else tag

    async def _body(self, file: BinaryIO, answer: httpx.Response) -> None:
        most = self._bounds.most if self._remote.size is None else self._remote.size
        clock = asyncio.get_running_loop().time
        since, got = clock(), 0
        async for chunk in answer.aiter_bytes():
            self._size += len(chunk)
            if self._size > most:
                raise AnswerTooLongError(f"more than the {most} bytes expected", request=answer.request)
            file.write(chunk)
            self._digest.update(chunk)
            got += len(chunk)
            if (now := clock()) - since >= self._bounds.window_s:
                if got < self._bounds.least:
                    raise httpx.ReadTimeout(f"only {got} bytes came in {now - since:.0f} s", request=answer.request)
                since, got = now, 0
