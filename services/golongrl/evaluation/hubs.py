"""The hubs that publish benchmarks: which files a repository has at a revision, and which hosts may send them.

Invariants: every request goes to the hub that was asked, or by https to a host that the hub keeps files on; a file's
name stays below its repository's folder; the hub's token is sent to the hub alone.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final, Literal
from urllib.parse import quote, urlsplit

import httpx

from golongrl import bounded_http
from golongrl.errors import GolongrlError, brief

Hub = Literal["huggingface", "modelscope", "pypi"]

# More hosts, for a mirror that keeps its files elsewhere.
HOSTS_VARIABLE: Final = "GOLONGRL_FETCH_HOSTS"
# Where each is asked, the variable for a mirror, and the domains of its files.
_PLACES: Final[Mapping[Hub, tuple[str, str, tuple[str, ...]]]] = {
    "huggingface": ("https://huggingface.co", "HF_ENDPOINT", ("huggingface.co", "hf.co")),
    "modelscope": (
        "https://www.modelscope.cn",
        "GOLONGRL_MODELSCOPE",
        ("modelscope.cn", "modelscope.ai", "aliyuncs.com"),
    ),
    "pypi": ("https://pypi.org", "GOLONGRL_PYPI", ("pypi.org", "pythonhosted.org")),
}
# A repository's list of files: a few hundred bytes for each of at most some ten thousand.
_MOST_LISTED: Final = 16 << 20
_LISTING_S: Final = 120.0
_LONGEST_NAME: Final = 1024


class FetchError(GolongrlError):
    """Data could not be fetched, or is not what was published; the message names the source."""


class HostRefusedError(httpx.RequestError):
    """A redirect, or a list of files, leads to a host that is not the hub's."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file as its hub lists it; what the hub does not say is None."""

    url: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """A repository at a revision: its files by their paths in it."""

    revision: str
    files: Mapping[str, RemoteFile]


def endpoint(hub: Hub) -> str:
    """Where a hub is asked."""
    usual, variable, _ = _PLACES[hub]
    return (os.environ.get(variable) or usual).rstrip("/")


def hosts(hub: Hub) -> tuple[str, ...]:
    """The domains that may send a hub's files."""
    more = os.environ.get(HOSTS_VARIABLE, "").replace(",", " ").split()
    return (*_PLACES[hub][2], *more)


def refusal(url: str, asked: str, domains: Iterable[str]) -> str | None:
    """Why a request to `url` is not made by one who asks the hub at `asked`; None where it is."""
    wanted, base = urlsplit(url), urlsplit(asked)
    if (wanted.scheme, wanted.netloc) == (base.scheme, base.netloc):
        return None
    host = wanted.hostname or "no host"
    if wanted.scheme != "https":
        return f"leads to {wanted.scheme}://{host}, which is not https"
    if any(host == domain or host.endswith(f".{domain}") for domain in domains):
        return None
    return f"leads to {host}, not a host of the hub; if it is your mirror's, set {HOSTS_VARIABLE}={host}"


def client(hub: Hub, silence_s: float) -> httpx.AsyncClient:
    """A client whose every request, redirected ones too, stays with the hub.

    Args:
        silence_s: without any byte for this long a call is given up.
    """
    asked, domains = endpoint(hub), hosts(hub)

    async def check(request: httpx.Request) -> None:
        if why := refusal(str(request.url), asked, domains):
            raise HostRefusedError(f"the address {why}", request=request)

    return bounded_http.client(
        asked,
        timeout=silence_s,
        follow_redirects=True,
        max_redirects=5,
        event_hooks={"request": [check]},
        headers={"Accept-Encoding": "identity"},
    )


def token(hub: Hub) -> dict[str, str]:
    """The header that opens gated data; httpx drops it where a redirect leads to another host."""
    if hub != "huggingface":
        return {}
    from huggingface_hub import get_token

    found = get_token()
    return {"Authorization": f"Bearer {found}"} if found else {}


async def listed(http: httpx.AsyncClient, hub: Hub, repo: str, revision: str | None, note: str) -> Listing:
    """What a repository has.

    Args:
        revision: None takes the newest.
        note: how a gated repository is opened.

    Raises:
        FetchError: it cannot be read, or has a file whose name leads out of it.
    """
    try:
        found = await _LISTS[hub](http, endpoint(hub), repo, revision, note)
    except (KeyError, TypeError, AttributeError) as error:
        raise FetchError(f"{repo}: the list of files at {urlsplit(endpoint(hub)).hostname} cannot be read") from error
    for name in found.files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or not name.isprintable() or not path.parts:
            raise FetchError(f"{repo}: the hub lists a file {name[:80]!r}, which is not a path inside a repository")
        if len(name) > _LONGEST_NAME:
            raise FetchError(f"{repo}: the hub lists a file whose path has {len(name)} characters")
    return found


async def _huggingface(http: httpx.AsyncClient, base: str, repo: str, revision: str | None, note: str) -> Listing:
    place = f"{base}/api/datasets/{quote(repo)}" + (f"/revision/{quote(revision, safe='')}" if revision else "")
    answer = await _ask(http, f"{place}?blobs=true", repo, token("huggingface"))
    if not answer.is_success:
        raise FetchError(f"{repo}: {_refused(answer, revision, note)}")
    info = _json(answer, repo)
    commit = str(info["sha"])
    files = {
        entry["rfilename"]: RemoteFile(
            f"{base}/datasets/{quote(repo)}/resolve/{quote(commit, safe='')}/{quote(entry['rfilename'])}",
            _size(entry.get("size")),
            (entry.get("lfs") or {}).get("sha256"),
        )
        for entry in info["siblings"]
    }
    return Listing(commit, files)


def _refused(answer: httpx.Response, revision: str | None, note: str) -> str:
    match answer.headers.get("X-Error-Code"), answer.status_code:
        case "RevisionNotFound", _:
            return f"the hub has no revision {revision}"
        case "GatedRepo", _:
            return f"the hub refuses access; {note or 'set HF_TOKEN'}"
        case ("RepoNotFound", _) | (_, 401 | 404):
            return "the hub has no such data set, or it needs HF_TOKEN"
        case _:
            return f"{answer.url.host} answered {answer.status_code}"


async def _modelscope(http: httpx.AsyncClient, base: str, repo: str, revision: str | None, _: str) -> Listing:
    commit = revision or "master"
    place = f"{base}/api/v1/datasets/{quote(repo)}/repo"
    asked = quote(commit, safe="")
    found = _json(_found(await _ask(http, f"{place}/tree?Revision={asked}&Recursive=True", repo), repo), repo)
    files = {
        entry["Path"]: RemoteFile(
            f"{place}?Revision={asked}&FilePath={quote(entry['Path'])}",
            _size(entry.get("Size")),
            entry.get("Sha256") or None,
        )
        for entry in found["Data"]["Files"]
        if entry["Type"] == "blob"
    }
    return Listing(commit, files)


async def _pypi(http: httpx.AsyncClient, base: str, repo: str, revision: str | None, _: str) -> Listing:
    if revision is None:
        raise FetchError(f"{repo}: a package needs a version")
    place = f"{base}/pypi/{quote(repo)}/{quote(revision, safe='')}/json"
    found = _json(_found(await _ask(http, place, repo), repo), repo)
    files = {
        entry["filename"]: RemoteFile(
            entry["url"], _size(entry.get("size")), (entry.get("digests") or {}).get("sha256")
        )
        for entry in found.get("urls", ())
    }
    return Listing(revision, files)


_LISTS: Final = {"huggingface": _huggingface, "modelscope": _modelscope, "pypi": _pypi}


async def _ask(
    http: httpx.AsyncClient, url: str, repo: str, headers: Mapping[str, str] | None = None
) -> httpx.Response:
    try:
        return await bounded_http.request(http, "GET", url, _LISTING_S, most=_MOST_LISTED, headers=dict(headers or {}))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        where = f"{urlsplit(url).hostname or url} does not answer"
        raise FetchError(f"{repo}: {where}: {brief(error)}{bounded_http.by_proxy(url)}") from error


def _found(answer: httpx.Response, repo: str) -> httpx.Response:
    if answer.status_code == 404:
        raise FetchError(f"{repo}: no such repository or revision at {answer.url.host}")
    if not answer.is_success:
        raise FetchError(f"{repo}: {answer.url.host} answered {answer.status_code}")
    return answer


def _json(answer: httpx.Response, repo: str) -> Any:
    if (found := bounded_http.parsed(answer)) is None:
        raise FetchError(f"{repo}: {answer.url.host} answered with something that is not JSON")
    return found


def _size(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
