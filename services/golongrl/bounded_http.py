"""Asking servers by HTTP: the way there, and reading what they answer within bounds.

httpx bounds each read of a socket, not an answer's length or time. Every client reads through here, so that a server
which never ends, sends a byte a second, or gigabytes (or kilobytes that decompress to gigabytes) costs a known time and
memory. A client of a server that a person named is made by `client`: the environment may name a proxy for it.
"""

import asyncio
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from golongrl.errors import InputError, without_secrets

# An answer about a server itself: a list of models, its metrics, its settings.
_MOST_BYTES = 16 << 20
# These describe the body as it was sent.
_OF_THE_BODY = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})


class AnswerTooLongError(httpx.RequestError):
    """The answer is longer than its reader takes, or has no end."""


def client(url: str, **options: Any) -> httpx.AsyncClient:
    """A client for the server at `url`, by the proxy and with the certificates that the environment names. A server of
    this machine is behind no proxy, whatever the environment says.

    Raises:
        InputError: the environment names a proxy or certificates that cannot be used.
    """
    with _read_environment():
        return httpx.AsyncClient(trust_env=not _is_here(url), **options)


def refuse_no_address(url: str, option: str) -> None:
    """Raises InputError naming the option whose `url` no client could ask."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(httpx.URL(url).host) and parts.port != 0
    except (ValueError, httpx.InvalidURL):
        usable = False
    if not usable:
        raise InputError(f"{option} {without_secrets(url)}: no address of a server; write http://HOST:PORT")


def certificates(url: str) -> ssl.SSLContext:
    """Those that a client of `url` trusts: reading them takes longer than a request.

    Raises:
        InputError: the environment names some that cannot be read.
    """
    with _read_environment():
        return httpx.create_ssl_context(trust_env=not _is_here(url))


def by_proxy(url: str) -> str:
    """For a message about a server that is not reached: the proxy that was asked for it."""
    parts, proxies = urlsplit(url), getproxies()
    name = next((name for name in (parts.scheme, "all") if name in proxies), None)
    if name is None or _is_here(url) or proxy_bypass(parts.netloc):
        return ""
    return f" (by the proxy of {name.upper()}_PROXY; NO_PROXY={parts.hostname} goes around it)"


@contextmanager
def _read_environment() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"SSL_CERT_FILE or SSL_CERT_DIR: the certificates cannot be read: {error}") from error
    except ImportError as error:
        raise InputError("ALL_PROXY: a SOCKS proxy needs the package socksio: pip install 'httpx[socks]'") from error
    # Neither is quoted: a proxy's URL may have a password.
    except (ValueError, httpx.InvalidURL) as error:
        names = ", ".join(f"{name.upper()}_PROXY" for name in sorted(getproxies()))
        raise InputError(f"{names}: no address of a proxy; write http://HOST:PORT, or socks5://HOST:PORT") from error


def _is_here(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def read(response: httpx.Response, most: int) -> bytes:
    """The whole body of a streamed answer.

    Raises:
        AnswerTooLongError: it has more than `most` bytes, decompressed.
    """
    parts, size = [], 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > most:
            raise AnswerTooLongError(f"an answer of more than {most} bytes", request=response.request)
        parts.append(part)
    return b"".join(parts)


@asynccontextmanager
async def asked(http: httpx.AsyncClient, method: str, url: str, **options: Any) -> AsyncIterator[httpx.Response]:
    """The answer, its body not read yet: `httpx.AsyncClient.stream`, but a redirect to what is no address is the
    answer's fault (RemoteProtocolError), and not that of `url` (InvalidURL). Compressed more than once is refused
    (DecodingError): two kilobytes of it may be a gigabyte, which is made before its length can be seen."""
    built = http.build_request(method, url, **options)
    try:
        response = await http.send(built, stream=True)
    except httpx.InvalidURL as error:
        raise httpx.RemoteProtocolError(f"it redirects to what is no address: {error}", request=built) from error
    try:
        if len(codings := response.headers.get_list("content-encoding", split_commas=True)) > 1:
            raise httpx.DecodingError(f"it is compressed {len(codings)} times", request=built)
        yield response
    finally:
        await response.aclose()


async def request(
    http: httpx.AsyncClient, method: str, url: str, deadline_s: float, *, most: int = _MOST_BYTES, **options: Any
) -> httpx.Response:
    """The whole answer.

    Args:
        deadline_s: of the call, connecting and reading included.
        options: of `httpx.AsyncClient.build_request`.

    Raises:
        httpx.RequestError: there is none within the deadline, or it is too long.
        httpx.InvalidURL: there is no such address.
    """
    try:
        async with asyncio.timeout(deadline_s), asked(http, method, url, **options) as response:
            content = await read(response, most)
    except TimeoutError as error:
        raise httpx.ReadTimeout(f"no whole answer within {deadline_s:g} s") from error
    # As bytes: a proxy's may be no ASCII.
    headers = [(name, value) for name, value in response.headers.raw if name.lower() not in _OF_THE_BODY]
    return httpx.Response(response.status_code, headers=headers, content=content, request=response.request)


async def get(http: httpx.AsyncClient, url: str, deadline_s: float) -> httpx.Response:
    """As `request`, of a GET."""
    return await request(http, "GET", url, deadline_s)


def parsed(answer: httpx.Response) -> Any:
    """The JSON of an answer; None where it is none, whatever it is instead."""
    try:
        return json.loads(answer.content)
    except (ValueError, RecursionError):
        return None


def asked_pause_s(answer: httpx.Response) -> float | None:
    """The seconds before another try that a server asks for; None where it names none, or a date."""
    value = answer.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else None
