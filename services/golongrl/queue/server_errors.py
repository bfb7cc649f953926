"""What an error of a Redis server means: it passes by itself, its user lacks a right, or the data are not ours. Pure.

redis-py takes an error's code off its message where it has a class for it, and words differ between servers and between
a call and a script: what is known of that stands here.
"""

import re
import ssl

from redis import exceptions as rx
from redis.asyncio.sentinel import MasterNotFoundError

from golongrl.queue.address import PASSWORD, SENTINEL_PASSWORD

# A call's arguments, and the place in a script.
_NOISE = re.compile(r"(, with args beginning with.*| script:( \S+,)? on @user_script:\d+\.)\Z", re.DOTALL)
# Errors of a server that will serve again, by class where redis-py has one (it takes the code off the message then).
_PASSING: tuple[tuple[type[Exception], str], ...] = (
    # Loaded a moment ago, and forgotten since: SCRIPT FLUSH, or another server after a fail-over.
    (rx.NoScriptError, "the server to keep a script"),
    (MasterNotFoundError, "a primary that a sentinel names (fail-over)"),
    (rx.OutOfMemoryError, "memory on the server (maxmemory reached)"),
    (rx.BusyLoadingError, "the server to load its data"),
    (rx.ReadOnlyError, "a writable primary (fail-over)"),
    (rx.MasterDownError, "a primary (fail-over)"),
    (rx.ClusterDownError, "the cluster"),
    (rx.TryAgainError, "the cluster (slot migration)"),
    (rx.AskError, "the cluster (slot migration)"),
    (rx.ConnectionError, "a connection to the server"),
    (rx.TimeoutError, "a connection to the server"),
    (OSError, "a connection to the server"),
)
# And by code where it has none, or where the error comes from inside a script.
_PASSING_CODES = {
    "OOM": "memory on the server (maxmemory reached)",
    "LOADING": "the server to load its data",
    "READONLY": "a writable primary (fail-over)",
    "MASTERDOWN": "a primary (fail-over)",
    "CLUSTERDOWN": "the cluster",
    "TRYAGAIN": "the cluster (slot migration)",
    "NOREPLICAS": "enough replicas (min-replicas-to-write)",
    "MISCONF": "the server's disk (it cannot persist)",
    "BUSY": "a long script on the server",
    "UNBLOCKED": "a primary (fail-over)",
}


def passing_reason(error: Exception) -> str | None:
    """What to wait for after `error`; None when waiting cannot help."""
    if isinstance(error, rx.AuthenticationError | rx.AuthorizationError) or is_of_a_certificate(error):
        return None
    for kind, what in _PASSING:
        if isinstance(error, kind):
            return what
    return _PASSING_CODES.get(str(error).partition(" ")[0]) if isinstance(error, rx.RedisError) else None


def is_of_a_certificate(error: Exception) -> bool:
    """Whether the server's certificate is not one that the address trusts."""
    return isinstance(error.__cause__ or error.__context__, ssl.SSLCertVerificationError)


def is_of_the_data(error: Exception) -> bool:
    """Whether a script of ours met a key or a value that none of them writes."""
    text = str(error)
    ours = is_denied(error) or has_no_command(error)
    return isinstance(error, rx.ResponseError) and not ours and ("user_script" in text or "WRONGTYPE" in text)


def advice(error: Exception, prefix: str) -> str:
    """What a person can do about it, as the end of a sentence; empty where that is not known."""
    if is_denied(error):
        return f"; {needs_right(prefix)}"
    if isinstance(error, rx.AuthenticationError):
        return f"; its password comes in {PASSWORD}, or in the file that {PASSWORD}_FILE names"
    if is_of_a_certificate(error):
        return "; check ssl_ca_certs in the address, and the server's certificate"
    if has_no_command(error) and "'SENTINEL'" in str(error):
        return "; it is no sentinel: give a sentinel's port (26379 by default), or redis:// for the server itself"
    if has_no_command(error):
        return "; the server has it renamed or disabled, or is too old (see `golongrl queue check`)"
    return ""


def needs_right(prefix: str) -> str:
    """What a user lacks, of the run whose keys begin with `prefix`."""
    return f"its user needs this right, on the keys {prefix}* (ACL SETUSER on the server)"


def is_denied(error: Exception) -> bool:
    """Whether the user lacks a right."""
    return isinstance(error, rx.NoPermissionError) or str(error).startswith(
        # In a script: as Redis 7.2 and Valkey word it, and as 7.0 does.
        ("ACL failure", "NOPERM", "The user executing the script")
    )


def has_no_command(error: Exception) -> bool:
    """Whether the server lacks a command."""
    return str(error).lower().removeprefix("err ").startswith("unknown command")


def words(error: Exception) -> str:
    """An error's own words, but for one that holds the representation of every sentinel's client, and for noise."""
    if isinstance(error, MasterNotFoundError) and "AuthenticationError" in str(error):
        return f"one refuses to tell without its own password; give it in {SENTINEL_PASSWORD}"
    if isinstance(error, MasterNotFoundError):
        return "none answers with one; check their addresses, the service's name and the certificates"
    return _NOISE.sub("", str(error)) or ("no answer" if isinstance(error, TimeoutError) else type(error).__name__)
