"""From a Redis URL to a client, with the password from the URL, the environment or a file, and never in a message.

    redis://[USER[:PASSWORD]@]HOST[:PORT][/DB]          rediss:// the same with TLS (?ssl_ca_certs=FILE and so on)
    redis+sentinel://[USER[:PASSWORD]@]HOST[:PORT],.../SERVICE[/DB]      rediss+sentinel:// with TLS
    unix://[USER[:PASSWORD]@]/PATH[?db=DB]

`?replicas=N` (any form): a durable write is confirmed by N replicas, too. Without it N is the server's
`min-replicas-to-write`. An option that is not listed here is refused: redis-py takes any argument of its client from a
URL, and most of them change what answers look like. TLS is set up once here, so that what waiting cannot mend, such as
a file without certificates, is not waited for.
"""

import os
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit, urlunsplit

import redis.asyncio as aioredis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from golongrl.errors import InputError
from golongrl.queue.errors import QueueUnavailableError
from golongrl.reading import read_text

# Where a Redis, and its passwords, may come from beside the command line.
URL = "GOLONGRL_REDIS_URL"
PASSWORD = "GOLONGRL_REDIS_PASSWORD"
SENTINEL_PASSWORD = "GOLONGRL_REDIS_SENTINEL_PASSWORD"
# A server that is there accepts at once; the patience of a call tries again.
CONNECT_TIMEOUT_S = 5.0
SENTINEL_PORT = 26379
HIDDEN = "***"
_SENTINEL = "+sentinel"
# Characters of a password that may be a part of ordinary words.
_SHORT = 8
# Bytes of a file with a password; more is another file.
_LONGEST_PASSWORD = 64 << 10
# Of these, redis-py says that it could not connect: no such file.
_FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
_TLS = (
    *_FILES, "ssl_ca_data", "ssl_password", "ssl_cert_reqs", "ssl_check_hostname", "ssl_min_version", "ssl_ciphers",
    "ssl_include_verify_flags", "ssl_exclude_verify_flags",
)  # fmt: skip
_OPTIONS = ("db", "replicas", "username", "password", "client_name", "sentinel_username", "sentinel_password", *_TLS)
_DATABASE = re.compile(r"(0|[1-9][0-9]{0,8})?\Z", re.ASCII)


@dataclass(frozen=True)
class Address:
    """A way to a server: its client, its name for messages, and what messages must not have."""

    client: "aioredis.Redis"
    name: str
    replicas: int | None = None
    """Replicas that confirm a durable write; None: as the server's own settings say."""
    secrets: tuple[str, ...] = ()

    def hide(self, text: str) -> str:
        """`text` without passwords. A short one is hidden only where it is a whole word: holes in other words would
        tell it."""
        for secret in self.secrets:
            word = r"(?<!\w)%s(?!\w)" if len(secret) < _SHORT else "%s"
            text = re.sub(word % re.escape(secret), HIDDEN, text)
        return text


def address(url: str) -> Address:
    """The server of `url`; connects at the first call.

    Raises:
        InputError: it is not the URL of a Redis. The message does not repeat it, as it may hold a password.
    """
    try:
        parts = urlsplit(url)
        options = _options(url, parts.query)
        replicas = int(options.pop("replicas")[0]) if "replicas" in options else None
        if (replicas or 0) < 0:
            raise ValueError("fewer replicas than none")
        # `urlunsplit` takes the slashes off unix:///PATH.
        query = f"?{urlencode(options, doseq=True)}" if options else ""
        plain = f"{parts.scheme}://{parts.netloc}{parts.path}{query}"
        if parts.scheme.endswith(_SENTINEL):
            client, name = _sentinel(plain)
        else:
            client = aioredis.Redis(connection_pool=aioredis.ConnectionPool(**_settings(plain)))
            name = _name(client)
        # A connection is made only to see that its options are known.
        pool: Any = client.connection_pool
        connection = pool.make_connection()
    except (ValueError, TypeError, AttributeError, RedisError) as error:
        raise InputError(
            f"{named_by(url)}: not a URL of a Redis: give redis://[:PASSWORD@]HOST:PORT/DB, rediss://, unix://PATH or "
            "redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB; special characters of a password are percent-encoded, or "
            f"the password comes in {PASSWORD} or {PASSWORD}_FILE"
        ) from error
    for option in _FILES:
        for file in options.get(option, []):
            if not os.access(file, os.R_OK):
                raise InputError(f"{named_by(url)}: {option}={file}: there is no such file, or it cannot be read")
    if (tls := getattr(connection, "ssl_context", None)) is not None:
        try:
            tls.get()
        except (OSError, ValueError, TypeError) as error:  # SSLError is an OSError
            given = ", ".join(option for option in options if option in _TLS)
            raise InputError(f"{named_by(url)}: TLS cannot be set up with {given}: {_of_openssl(error)}") from error
    found = (client.connection_pool.connection_kwargs.get("password"), unquote(parts.password or ""), parts.password)
    return Address(client, name, replicas, tuple({secret for secret in found if secret}))


def _options(url: str, query: str) -> dict[str, list[str]]:
    """The options of a URL, each known, given once and with a value."""
    options = parse_qs(query, keep_blank_values=True)
    for name, values in options.items():
        if name not in _OPTIONS:
            if "@" in query:  # a password with a ?, which the message must not repeat
                raise ValueError("a login behind the options")
            known = ", ".join(_OPTIONS)
            raise InputError(f"{named_by(url)}: {name!a} is no option of a Redis URL here; there are {known}")
        if len(values) > 1 or not values[0]:
            raise InputError(f"{named_by(url)}: option {name} has {'more than one' if values[0] else 'no'} value")
    return options


def _of_openssl(error: Exception) -> str:
    reason = getattr(error, "reason", None) if isinstance(error, ssl.SSLError) else None
    return f"{reason.replace('_', ' ').lower()} (check the files)" if reason else str(error)


def named_by(url: str) -> str:
    """For a message: the option or the variable of the environment that gave `url`."""
    return URL if os.environ.get(URL) == url else "--redis-url"


def silence(url: str, seconds: float) -> str:
    """What is said of a server that takes connections and is silent. One without TLS takes its greeting for
    the beginning of a command."""
    hint = "; one without TLS is silent to rediss://, give redis://" if url.startswith("rediss") else ""
    return f"has not answered for {seconds:g} s{hint}"


@contextmanager
def naming_environment(url: str) -> Iterator[None]:
    """Where its server does not answer, the block's error says where `url` came from, unless a person just typed it."""
    try:
        yield
    except QueueUnavailableError as error:
        if named_by(url) != URL:
            raise
        raise QueueUnavailableError(f"{URL}: {error}") from error


def password(name: str = PASSWORD) -> str | None:
    """The password in the environment: in NAME, or in the file that NAME_FILE names. A line break at its end is of the
    file that it, or a Secret, was made from.

    Raises:
        InputError: the file cannot be read.
    """
    if value := os.environ.get(name, "").rstrip("\r\n"):
        return value
    file = os.environ.get(f"{name}_FILE")
    if not file:
        return None
    try:
        return read_text(Path(file), _LONGEST_PASSWORD).strip() or None
    except InputError as error:
        raise InputError(f"{name}_FILE {error}") from error
    except OSError as error:
        raise InputError(f"{name}_FILE {file}: cannot be read: {error.strerror or error}") from error


def _settings(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    if parts.port == 0:  # redis-py would take its default
        raise ValueError("no port")
    # It takes database 0 for what is no number, and two numbers for one, too.
    databases = [parts.path.removeprefix("/").removesuffix("/")] if parts.scheme != "unix" else []
    for database in databases + parse_qs(parts.query).get("db", []):
        if not _DATABASE.match(database):
            raise ValueError("no number of a database")
    found = dict(parse_url(url))
    # Without a password, OpenSSL would ask for an encrypted key's on the terminal.
    no_question = {"ssl_password": ""} if "ssl_keyfile" in found or "ssl_certfile" in found else {}
    return {
        **no_question,
        **found,
        "password": found.get("password") or password(),
        # One deadline around a whole try (connection.TRY_S) instead of redis-py's around each read and write.
        "socket_timeout": None,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }


def _sentinel(url: str) -> tuple["aioredis.Redis", str]:
    """A client that asks the sentinels for the primary at every new connection."""
    parts = urlsplit(url)
    login, at, hosts = parts.netloc.rpartition("@")
    service, _, db = parts.path.strip("/").partition("/")
    if not service:
        raise ValueError("no service")
    options = parse_qs(parts.query)
    own = options.pop("sentinel_password", [password(SENTINEL_PASSWORD)])[0]
    user = options.pop("sentinel_username", [None])[0]
    scheme = parts.scheme.removesuffix(_SENTINEL)
    # What is common to the primary and the sentinels: login, database, TLS.
    settings = _settings(urlunsplit((scheme, f"{login}{at}sentinel", f"/{db}", urlencode(options, doseq=True), "")))
    tls = settings.pop("connection_class", None) is not None
    for name in ("host", "port"):
        settings.pop(name, None)
    common = {name: value for name, value in settings.items() if name not in ("username", "password", "db")}
    sentinels = [_host(text) for text in hosts.split(",")]
    manager = Sentinel(  # type: ignore[no-untyped-call]
        sentinels,
        sentinel_kwargs={
            **common,
            "socket_timeout": CONNECT_TIMEOUT_S,
            "username": user,
            "password": own,
            **({"ssl": True} if tls else {}),
        },
        **settings,
        **({"ssl": True} if tls else {}),
    )
    return manager.master_for(service), f"{service} of the sentinels {hosts}"


def _host(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("no host")
    return parts.hostname, parts.port or SENTINEL_PORT


def _name(client: "aioredis.Redis") -> str:
    found = client.connection_pool.connection_kwargs
    return str(found.get("path") or f"{found.get('host', 'localhost')}:{found.get('port', 6379)}")
