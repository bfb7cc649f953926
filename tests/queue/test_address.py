"""Ways to a server: URLs, passwords from where they are kept, and none of them in a message."""

from pathlib import Path
from typing import Any

import pytest
from redis import exceptions as rx
from redis.asyncio.sentinel import MasterNotFoundError, SentinelConnectionPool, SentinelManagedSSLConnection

from golongrl.errors import InputError
from golongrl.queue import Patience, QueueError, SampleQueue
from golongrl.queue.address import PASSWORD, SENTINEL_PASSWORD, Address, address, password
from golongrl.queue.server import Durability, judge
from golongrl.queue.server_errors import advice, passing_reason, words
from support.redis_server import free_port

SECRET = "s3cr3t"


def pool_settings(found: Address) -> dict[str, Any]:
    return dict(found.client.connection_pool.connection_kwargs)


@pytest.fixture(autouse=True)
def no_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOLONGRL_REDIS_PASSWORD", "GOLONGRL_REDIS_SENTINEL_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(f"{name}_FILE", raising=False)


@pytest.mark.parametrize(
    ("url", "name", "expected"),
    [
        ("redis://h", "h:6379", {"password": None}),
        ("redis://h:7000/3", "h:7000", {"db": 3}),
        ("redis://h:7000/3/", "h:7000", {"db": 3}),
        (f"redis://:{SECRET}@h:7000/3", "h:7000", {"password": SECRET}),
        (f"rediss://me:{SECRET}@h:7000", "h:7000", {"username": "me", "password": SECRET}),
        ("unix:///run/redis.sock?db=2", "/run/redis.sock", {"db": 2}),
        ("redis://[::1]:7000", "::1:7000", {}),
        ("redis://:p%40s%2Fs@h", "h:6379", {"password": "p@s/s"}),
        (f"redis+sentinel://:{SECRET}@a:1,b/main/4", "main of the sentinels a:1,b", {"password": SECRET, "db": 4}),
    ],
)
def test_urls(url: str, name: str, expected: dict[str, Any]) -> None:
    found = address(url)
    assert found.name == name
    assert {key: pool_settings(found).get(key) for key in expected} == expected
    assert SECRET not in found.name


def test_sentinels_are_asked_with_their_own_password_and_tls() -> None:
    found = address(
        f"rediss+sentinel://:{SECRET}@a:1,[::1]:2/main?sentinel_password=other&ssl_cert_reqs=none&replicas=1"
    )
    pool = found.client.connection_pool
    assert isinstance(pool, SentinelConnectionPool)
    assert pool.connection_class is SentinelManagedSSLConnection
    assert found.replicas == 1
    asked = [one.connection_pool.connection_kwargs for one in pool.sentinel_manager.sentinels]
    assert [(one["host"], one["port"], one["password"]) for one in asked] == [("a", 1, "other"), ("::1", 2, "other")]
    assert all(one["ssl_cert_reqs"] == "none" for one in asked)


@pytest.mark.parametrize(
    "url",
    [
        f"http://:{SECRET}@host",
        f"redis://:{SECRET}/x@host",
        f"redis://:{SECRET}#x@host:1",
        f"redis://:{SECRET}@host:port",
        f"redis://:{SECRET}@host:99999999",
        f"redis://:{SECRET}@host:0",
        f"redis://:?{SECRET}=x@host",
        f"redis://:{SECRET}@host?ssl_ca_certs=x",
        f"rediss://:{SECRET}@host?ssl_cert_reqs=some",
        f"redis://:{SECRET}@host?replicas=many",
        f"redis://:{SECRET}@host?replicas=-1",
        *(f"redis://:{SECRET}@host/{db}" for db in ("x", "1x", "1/2", " 1", "-1", "1.0", "\u0663", "%31", "007", "/1")),
        f"redis://:{SECRET}@host?db=x",
        f"redis://:{SECRET}@host/1?db=-1",
        f"unix://:{SECRET}@/run/redis.sock?db=x",
        f"redis+sentinel://:{SECRET}@host/main/x",
        f"redis+sentinel://:{SECRET}@host/main/1/2",
        f"redis+sentinel://:{SECRET}@host",
        f"redis+sentinel://:{SECRET}@/main",
        f"redis+sentinel://:{SECRET}@host:x/main",
        SECRET,
        "",
    ],
)
def test_what_is_not_a_url_of_a_redis_is_one_line_without_its_password(url: str) -> None:
    with pytest.raises(InputError, match="--redis-url: not a URL of a Redis") as refused:
        address(url)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://h?credential_provider=x", "'credential_provider' is no option of a Redis URL here; there are db, "),
        ("redis://h?encoding=latin-1", "'encoding' is no option"),
        ("redis://h?decode_responses=yes", "'decode_responses' is no option"),
        ("redis://h?socket_timeout=1", "'socket_timeout' is no option"),
        ("redis+sentinel://h/main?host=other", "'host' is no option"),
        ("redis://h?db=", "option db has no value"),
        ("redis://h?db=1&db=2", "option db has more than one value"),
        ("rediss://h?ssl_ca_certs=/dev/null", "TLS cannot be set up with ssl_ca_certs: no certificate"),
        (f"rediss://h?ssl_ca_certs={__file__}", "TLS cannot be set up with ssl_ca_certs: no certificate"),
        (f"rediss+sentinel://h/main?ssl_ca_certs={__file__}", "TLS cannot be set up with ssl_ca_certs: no certificate"),
        ("rediss://h?ssl_ciphers=none-such", "TLS cannot be set up with ssl_ciphers: .*No cipher"),
    ],
)
def test_an_option_that_no_run_can_use_is_refused_by_name(url: str, words: str) -> None:
    """redis-py takes any argument of its client from a URL, and a file without certificates was waited for."""
    with pytest.raises(InputError, match=rf"^--redis-url: {words}"):
        address(url)


def test_the_password_may_come_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "password"
    file.write_text(f"{SECRET}\n")
    monkeypatch.setenv("GOLONGRL_REDIS_PASSWORD_FILE", str(file))
    assert pool_settings(address("redis://h"))["password"] == SECRET
    assert pool_settings(address("redis+sentinel://h/main"))["password"] == SECRET
    monkeypatch.setenv("GOLONGRL_REDIS_PASSWORD", "first")
    assert pool_settings(address("redis://h"))["password"] == "first"
    monkeypatch.setenv("GOLONGRL_REDIS_PASSWORD", "first \r\n")
    assert pool_settings(address("redis://h"))["password"] == "first "
    assert pool_settings(address("redis://:own@h"))["password"] == "own"
    monkeypatch.setenv("GOLONGRL_REDIS_PASSWORD", "")
    file.unlink()
    with pytest.raises(InputError, match=rf"GOLONGRL_REDIS_PASSWORD_FILE {file}: cannot be read: No such file"):
        password()


async def test_a_server_that_is_not_there_is_named_without_the_password() -> None:
    port = free_port()
    for url in (f"redis://:{SECRET}@127.0.0.1:{port}", f"redis+sentinel://:{SECRET}@127.0.0.1:{port}/main"):
        async with SampleQueue.from_url(url, "r", patience=Patience(0.2)) as queue:
            with pytest.raises(QueueError, match=rf"127.0.0.1:{port}.*waited for a (connection|primary)") as failed:
                await queue.stats()
        assert SECRET not in str(failed.value)


def test_an_error_that_repeats_the_password_does_not_pass_it_on() -> None:
    assert address("redis://:p%40s@h").hide("user p@s and p%40s") == "user *** and ***"
    assert address("redis://:run@h").hide("run 'run' of a runner") == "*** '***' of a runner"
    assert address("redis://:longsecret@h").hide("xlongsecrety") == "x***y"


@pytest.mark.parametrize(
    ("error", "waits_for"),
    [
        (rx.ReadOnlyError("You can't write against a read only replica."), "a writable primary (fail-over)"),
        (rx.MasterDownError("Link with MASTER is down"), "a primary (fail-over)"),
        (rx.ClusterDownError("The cluster is down"), "the cluster"),
        (rx.TryAgainError("Multiple keys request during rehashing"), "the cluster (slot migration)"),
        (rx.BusyLoadingError("Valkey is loading the dataset in memory"), "the server to load its data"),
        (rx.OutOfMemoryError("command not allowed"), "memory on the server (maxmemory reached)"),
        (rx.ResponseError("NOREPLICAS Not enough good replicas"), "enough replicas (min-replicas-to-write)"),
        (rx.ResponseError("MISCONF Errors writing to the AOF file"), "the server's disk (it cannot persist)"),
        (rx.ResponseError("BUSY Valkey is busy running a script."), "a long script on the server"),
        (rx.ResponseError("UNBLOCKED force unblock from blocking"), "a primary (fail-over)"),
        (rx.ResponseError("READONLY from a script"), "a writable primary (fail-over)"),
        (rx.ConnectionError("reset"), "a connection to the server"),
        (rx.TimeoutError("slow"), "a connection to the server"),
        (ConnectionResetError(), "a connection to the server"),
        (TimeoutError(), "a connection to the server"),
        (rx.AuthenticationError("invalid username-password pair"), None),
        (rx.NoPermissionError("no permissions"), None),
        (rx.NoScriptError("No matching script."), "the server to keep a script"),
        (rx.ResponseError("ERR unknown command"), None),
        (rx.ResponseError("WRONGTYPE Operation against a key"), None),
    ],
)
def test_what_is_waited_for(error: Exception, waits_for: str | None) -> None:
    assert passing_reason(error) == waits_for


@pytest.mark.parametrize("words", ["Authentication required.", "invalid username-password pair"])
def test_who_lacks_a_password_hears_where_it_comes_from(words: str) -> None:
    assert PASSWORD in advice(rx.AuthenticationError(words), "golongrl:{r}:")


def test_a_sentinel_that_asks_for_a_password_is_not_blamed_on_addresses_and_certificates() -> None:
    """As redis-py words it; each sentinel's error stands behind its client."""
    found = MasterNotFoundError(
        "No master found for 'main' : Redis<...> - AuthenticationError('Authentication required.')"
    )
    assert SENTINEL_PASSWORD in words(found)
    assert "certificates" in words(MasterNotFoundError("No master found for 'main' : Redis<...> - TimeoutError('')"))


SOUND = {"redis_version": "7.2.4", "maxmemory_policy": "noeviction", "maxmemory": 0, "aof_enabled": 1, "role": "master"}


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru", "volatile-ttl"])
def test_a_server_that_evicts_is_refused_with_the_line_to_set(policy: str) -> None:
    info = {**SOUND, "maxmemory_policy": policy, "maxmemory": 1 << 30}
    (refusal,) = judge(info, {}, waitaof=True).refusals
    assert f"maxmemory-policy {policy}" in refusal
    assert refusal.endswith("set `maxmemory-policy noeviction`")
    harmless = judge({**info, "maxmemory": 0}, {}, waitaof=True)
    assert not harmless.refusals
    assert "set `maxmemory-policy noeviction`" in harmless.warnings[0]


@pytest.mark.parametrize(
    ("info", "config", "waitaof", "durability", "says"),
    [
        ({}, {}, True, Durability.WAITAOF, ""),
        ({}, {"appendfsync": "always"}, False, Durability.ALWAYS, ""),
        ({}, {"appendfsync": "everysec"}, False, Durability.NONE, "appendfsync always"),
        ({"aof_enabled": 0}, {"appendfsync": "always"}, True, Durability.NONE, "turn on `appendonly yes`"),
        ({"connected_slaves": 1}, {"min-replicas-to-write": "0"}, True, Durability.WAITAOF, "min-replicas-to-write 1"),
        ({"connected_slaves": 1}, {"min-replicas-to-write": "1"}, True, Durability.WAITAOF, ""),
    ],
)
def test_what_a_server_may_lose_is_said_with_the_line_to_set(
    info: dict[str, Any], config: dict[str, str], waitaof: bool, durability: Durability, says: str
) -> None:
    report = judge({**SOUND, **info}, config, waitaof=waitaof)
    assert report.durability is durability
    assert not report.refusals
    assert [says in warning for warning in report.warnings] == ([True] if says else [])


def test_an_old_server_is_refused() -> None:
    (refusal,) = judge({**SOUND, "redis_version": "6.2.14"}, {}, waitaof=False).refusals
    assert "Redis 6.2.14" in refusal


@pytest.mark.parametrize("scheme", ["rediss://h/0", "rediss+sentinel://h:1/main"])
@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"])
def test_a_certificate_that_is_not_there_is_named(scheme: str, option: str, tmp_path: Path) -> None:
    """The server was blamed: `connecting to h:6379. No such file or directory`."""
    missing = tmp_path / "ca.crt"
    with pytest.raises(InputError, match=f"^--redis-url: {option}={missing}: there is no such file"):
        address(f"{scheme}?{option}={missing}")
    missing.touch()
    with pytest.raises(InputError, match=f"^--redis-url: TLS cannot be set up with {option}"):
        address(f"{scheme}?{option}={missing}")


async def test_a_redis_that_is_asked_as_a_sentinel_is_said_to_be_none(redis_url: str) -> None:
    """It was said to be too old."""
    place = redis_url.removeprefix("redis://").partition("/")[0]
    async with SampleQueue.from_url(f"redis+sentinel://{place}/main", "r", patience=Patience(0.2)) as queue:
        with pytest.raises(QueueError, match="it is no sentinel: give a sentinel's port"):
            await queue.stats()


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        ({"maxmemory": 100, "used_memory": 100}, "its maxmemory is used up"),
        ({"aof_last_write_status": "err"}, "its last write to the append-only file failed"),
        ({"rdb_last_bgsave_status": "err"}, "its last snapshot failed"),
    ],
)
def test_a_server_that_refuses_writes_at_this_moment_is_no_refusal_and_is_told(
    info: dict[str, Any], reason: str
) -> None:
    report = judge({**SOUND, **info}, {"appendfsync": "always"}, waitaof=True)
    assert (report.refusals, report.warnings) == ((), (f"it may refuse writes at this moment: {reason}",))
