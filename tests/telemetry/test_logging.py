"""Log lines of a process, and what never stands in them."""

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl.errors import without_secrets
from golongrl.telemetry.tracing import of_group, of_version

PROGRAM = """
import logging, structlog
from golongrl.telemetry.logging import configure
configure("rollout", "demo")
structlog.get_logger().warning("waiting", server="redis://:url-word@h:1/0", error="AUTH env-word failed")
logging.getLogger("other").error("rediss://me:url-word@h?password=url-word")
try:
    raise ValueError("redis://:url-word@h")
except ValueError:
    structlog.get_logger().exception("defect")
"""


def test_no_line_has_a_password_and_every_line_is_json() -> None:
    env = {**os.environ, "GOLONGRL_REDIS_PASSWORD": "env-word"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=True)
    assert "url-word" not in done.stderr
    assert "env-word" not in done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["waiting", "rediss://me:***@h?password=***", "defect"]
    assert lines[0]["server"] == "redis://:***@h:1/0"
    assert {line["run"] for line in lines} == {"demo"}


DEBUG = """
import logging, structlog
from golongrl.telemetry.logging import configure
configure("reward", "demo", level="DEBUG")
structlog.get_logger("golongrl.reward.app").debug("ours", ids=[1, 2, 3], text="x" * 5000, error="AUTH env-word")
for name in ("httpcore.http11", "urllib3", "uvicorn"):
    logging.getLogger(name).debug("request body: a prompt, Authorization: Bearer env-word")
logging.getLogger("httpx").info("a line for each request")
logging.getLogger("asyncio").info("a library's news")
"""


def test_at_debug_libraries_do_not_write_what_they_send() -> None:
    env = {**os.environ, "GOLONGRL_REWARD_TOKEN": "env-word"}
    done = subprocess.run([sys.executable, "-c", DEBUG], env=env, capture_output=True, text=True, check=True)
    ours, library = (json.loads(line) for line in done.stderr.splitlines())
    assert (ours["event"], ours["level"], ours["ids"]) == ("ours", "debug", "<3 items>")
    assert len(ours["text"]) < 1100
    assert library["event"] == "a library's news"
    assert "env-word" not in done.stderr


TRACED = """
import logging, structlog
from structlog.contextvars import bound_contextvars
from golongrl.telemetry.logging import configure
configure("rollout", "demo", traced={traced})
log = structlog.get_logger()
log.info("group leased", uid="0-1", version=3)
with bound_contextvars(uid="0-2", version=3):
    log.info("another")
    logging.getLogger("other").warning("a library's")
log.info("weights taken", version=4, lineage="l")
with bound_contextvars(lineage="l", step=5, version=4):
    log.info("step")
with bound_contextvars(trace_id="of a request"):
    log.info("scored", uid="0-1")
log.info("stopped")
log.info("odd", uid=7, lineage=None, version="x")
"""


@pytest.mark.parametrize("traced", [True, False])
def test_with_traces_a_line_of_a_group_or_a_version_names_its_trace(traced: bool) -> None:
    code = TRACED.format(traced=traced)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = [json.loads(line).get("trace_id") for line in done.stderr.splitlines()]
    one, other = of_group("demo", "0-1").trace_id, of_group("demo", "0-2").trace_id
    four, five = of_version("demo", "l", 4).trace_id, of_version("demo", "l", 5).trace_id
    known = [one, other, other, four, five, "of a request", None, None]
    assert found == (known if traced else [None] * 5 + ["of a request", None, None])


SECRETS = {
    "GOLONGRL_ENGINE_API_KEY": "abcdefgh",
    "JUDGE_KEY": "ijklmnop",
    "HOME": "refused",
    "X_TOKEN": "at",
    "A_PASSWORD": 'p@ss/w "rd',
}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://h:6379/0 refused", "redis://h:6379/0 refused"),
        ("redis://:pw@h:6379/0 refused", "redis://:***@h:6379/0 refused"),
        ("at redis://u:p@w@h/0, then http://h/a", "at redis://u:***@h/0, then http://h/a"),
        ("mail a@b.c, 12:30@noon", "mail a@b.c, 12:30@noon"),
        ("http://h/?password=x&y=1", "http://h/?password=***&y=1"),
        ("http://h/v1?api_key=x&api-key=y&key=z&a=1", "http://h/v1?api_key=***&api-key=***&key=***&a=1"),
        ("https://h/o?X=1&Signature=s&access_token=t", "https://h/o?X=1&Signature=***&access_token=***"),
        ("http://h/?monkey=x&tokens=3", "http://h/?monkey=x&tokens=3"),
        ("https://t0ken@h/x, redis://user@h/0", "https://***@h/x, redis://user@h/0"),
        ("data http:/u:pw@h/v1: no such file", "data http:/u:***@h/v1: no such file"),
        ("http:/t0ken@h/v1", "http:/***@h/v1"),
        ("redis+sentinel://h/m?sentinel_password=x&db=1", "redis+sentinel://h/m?sentinel_password=***&db=1"),
        ("s3://b?X-Amz-Signature=x&X-Amz-Date=1", "s3://b?X-Amz-Signature=***&X-Amz-Date=1"),
        ("http://h#access_token=x", "http://h#access_token=***"),
        ("http://h?a=1;auth=x;pwd=y;author=z", "http://h?a=1;auth=***;pwd=***;author=z"),
        ("{'authorization': 'Bearer abc.def-123'}", "{'authorization': 'Bearer ***'}"),
        ("a bearer of news, basic rules", "a bearer of news, basic rules"),
        ("hf_0123456789abcdefXY and sk-proj-0123456789abcdeF", "*** and ***"),
        ("sk-hynix-long-context-v2 and hf_hub_of_mine_0123456", "sk-hynix-long-context-v2 and hf_hub_of_mine_0123456"),
        ("the key abcdefgh", "the key ***"),
        ("p%40ss%2Fw%20%22rd p@ss/w%20%22rd", "*** p@ss/w%20%22rd"),
        ('{"key": "p@ss/w \\"rd"}', '{"key": "***"}'),
        ("the judge's ijklmnop", "the judge's ***"),
    ],
)
def test_passwords_are_replaced_and_nothing_else(text: str, shown: str) -> None:
    assert without_secrets(text, SECRETS) == shown


@given(
    st.text(
        st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_categories=["C", "Z"], exclude_characters="&"),
        min_size=5,
    )
)
def test_whatever_a_password_is_made_of_it_does_not_stand_in_the_line(password: str) -> None:
    line = without_secrets(f"cannot reach redis://user:{password}@host:1/0 now", {})
    assert line == "cannot reach redis://user:***@host:1/0 now"
