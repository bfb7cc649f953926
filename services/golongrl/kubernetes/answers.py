"""What an API server answers, read: refusals, events of a watch, the output of a command. Errors are one line."""

import json
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Final

from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.stream.ws_client import ERROR_CHANNEL, STDERR_CHANNEL, STDOUT_CHANNEL

from golongrl.kubernetes.cluster_errors import (
    ClusterConflictError,
    ClusterError,
    ClusterForbiddenError,
    ClusterMissingError,
)
from golongrl.kubernetes.forms import count, fit, text

Json = dict[str, Any]

NO_SERVER: Final = "the answer is not JSON of the Kubernetes API: is this an API server?"
# Characters of a refusal's words; webhooks may send many.
_LONGEST_REFUSAL: Final = 2000
# An answer that is not the API server's own JSON is quoted up to here.
_QUOTED: Final = 200
_EVENT: Final = {"type!": text, "object!": {"code": count, "message": text}}
_STATUS: Final = {"kind": text, "status": text, "message": text, "code": count}
_LIST: Final = {"kind": text, "metadata": {"continue": text}}
_BUSY: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_REFUSALS: Final[dict[int, tuple[type[ClusterError], str]]] = {
    HTTPStatus.UNAUTHORIZED: (ClusterForbiddenError, "log in again: the credentials were not accepted"),
    HTTPStatus.FORBIDDEN: (ClusterForbiddenError, ""),
    HTTPStatus.NOT_FOUND: (ClusterMissingError, ""),
    HTTPStatus.CONFLICT: (ClusterConflictError, ""),
    HTTPStatus.TOO_MANY_REQUESTS: (ClusterError, "the API server has too much to do: try again later"),
}


def refusal(where: str, code: int, message: str) -> ClusterError:
    """The error of a call that was refused."""
    kind, remedy = _REFUSALS.get(code, (ClusterError, ""))
    said = f"{where}: {code} {' '.join(message[:_LONGEST_REFUSAL].split())}".rstrip()
    error = kind("; ".join(filter(None, [said, remedy])))
    error.code = str(code)
    return error


def refused(where: str, error: ApiException) -> ClusterError:
    """The error of a call that the API server, or a proxy before it, refused."""
    code, said = int(error.status or 0), message(error)
    if code == HTTPStatus.NOT_FOUND and not _is_servers_own(error):
        # A proxy's "not found" says nothing of what the cluster has.
        return ClusterError(f"{where}: {code} {' '.join(said.split())}; {NO_SERVER}")
    return refusal(where, code, said)


def _is_servers_own(error: ApiException) -> bool:
    """Of a kind that it does not have, the API server says nothing but one line of text."""
    body = _body(error)
    with suppress(ValueError, RecursionError):
        told = fit(json.loads(body), _STATUS) or {}
        return told.get("kind") == "Status"
    return body.strip() == "404 page not found"


def failure(where: str, found: Json) -> ClusterError | None:
    """The refusal that an object is, if it is one: a proxy may send it with the code 200."""
    told = fit(found, _STATUS) or {}
    if told.get("kind") == "Status" and told.get("status") == "Failure":
        return refusal(where, told.get("code", 0), told.get("message", ""))
    return None


def entries(where: str, found: Json) -> list[Any]:
    """The entries of a list, of which some may be anything; raised if the answer is no list, or a part of one.

    A server writes an empty list of names alone with `items: null` or without items.
    """
    told, items = fit(found, _LIST) or {}, found.get("items")
    if not isinstance(items, list) and (items is not None or not told.get("kind", "").endswith("List")):
        raise ClusterError(f"{where}: {NO_SERVER}")
    if told.get("metadata", {}).get("continue"):
        # Nobody has asked for parts: what is not in this one would seem not to exist.
        raise ClusterError(f"{where}: the answer is only a part of the list: what stands before the API server?")
    return items or []


def message(error: ApiException) -> str:
    """The message of the API server's Status object, or what else answered."""
    body = _body(error)
    try:
        said = json.loads(body).get("message", "")
    except (ValueError, AttributeError, RecursionError):
        said = body[:_QUOTED]
    return str(said or error.reason or "")


def _body(error: ApiException) -> str:
    return error.body.decode(errors="replace") if isinstance(error.body, bytes) else str(error.body or "")


def pause_s(code: int, headers: Mapping[str, str] | None) -> float | None:
    """After how long a busy server says to ask again; None if it does not say."""
    wait = (headers or {}).get("Retry-After", "")
    # The API server gives seconds. A proxy that gives a date, which depends on its clock, is not believed.
    return max(1.0, float(wait)) if code in _BUSY and wait.isascii() and wait.isdecimal() and len(wait) < 4 else None


def event(where: str, line: bytes) -> Json:
    """One event of a watch; an event that is an error is raised."""
    try:
        found: Json | None = fit(json.loads(line), _EVENT)
    except (ValueError, RecursionError):
        found = None
    if found is None:
        shown = line[:_QUOTED].decode(errors="replace")
        raise ClusterError(f"{where}: no event of the Kubernetes API: {shown!r}")
    if found["type"] == "ERROR":
        told = found["object"]
        raise refusal(where, told.get("code", 0), told.get("message", ""))
    return found


async def output(opened: Any) -> tuple[str, str]:
    """Standard output of a command and why it failed, from the websocket's channels."""
    streams = {STDOUT_CHANNEL: b"", STDERR_CHANNEL: b"", ERROR_CHANNEL: b""}
    async with opened as socket:
        async for message in socket:
            data = message.data if isinstance(message.data, bytes) else str(message.data).encode()
            if data and data[0] in streams:
                streams[data[0]] += data[1:]
    printed, complained = (streams[channel].decode(errors="replace") for channel in (STDOUT_CHANNEL, STDERR_CHANNEL))
    ended = fit(json.loads(streams[ERROR_CHANNEL] or b"{}"), {"status": text, "message": text}) or {}
    if ended.get("status") == "Success":
        return printed, ""
    last = (complained.strip().splitlines() or [""])[-1]
    return printed, last or ended.get("message") or "the connection ended early"
