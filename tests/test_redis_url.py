"""Redis URLs and their passwords."""

import pytest
import redis.asyncio as aioredis
from hypothesis import given
from hypothesis import strategies as st

from golongrl.redis_url import split_password, with_password


@pytest.mark.parametrize(
    ("url", "public", "password"),
    [
        ("redis://h:1/0", "redis://h:1/0", None),
        ("redis://:pw@h:1/0", "redis://h:1/0", "pw"),
        ("redis://user:pw@h/0", "redis://user@h/0", "pw"),
        ("redis://user@h/0", "redis://user@h/0", None),
        ("rediss://:p%40w%2F@h:1", "rediss://h:1", "p@w/"),
        ("redis://:p@w@h:1/0", "redis://h:1/0", "p@w"),
        ("redis://:p/w@h:1/0", "redis://h:1/0", "p/w"),
        ("redis://h:1/0?password=pw&db=2", "redis://h:1/0?db=2", "pw"),
        ("redis://h:1/0?password=pw", "redis://h:1/0", "pw"),
        ("redis+sentinel://:pw@a:1,b:2/main/0", "redis+sentinel://a:1,b:2/main/0", "pw"),
        ("unix://:pw@/run/redis.sock?db=1", "unix:///run/redis.sock?db=1", "pw"),
        ("nonsense", "nonsense", None),
    ],
)
def test_a_url_is_split_from_its_password(url: str, public: str, password: str | None) -> None:
    assert split_password(url) == (public, password)


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1), st.sampled_from(["", "me"]))
def test_a_url_with_its_password_again_is_what_a_client_understands(password: str, user: str) -> None:
    url = with_password(f"redis://{user}@h:1/3" if user else "redis://h:1/3", password)
    kwargs = aioredis.Redis.from_url(url).connection_pool.connection_kwargs
    assert (kwargs["password"], kwargs.get("username") or "", kwargs["host"], kwargs["db"]) == (password, user, "h", 3)
    assert split_password(url)[1] == password
