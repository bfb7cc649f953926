"""Log lines: each event has one name, docs/logs.md lists it, and no line has what a prompt or an answer says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl.monitoring.log_events import FORBIDDEN, events
from golongrl.telemetry.logging import short

ROOT = Path(__file__).parents[2]


def test_no_event_has_a_field_for_text_ids_or_secrets() -> None:
    assert [event for event in events() if FORBIDDEN.intersection(event.fields)] == []


@pytest.mark.parametrize(
    "line",
    ["log.info(name)", 'log.info(f"group {uid}")', 'log.warning("a", "b")', "log.error(str(error))", "log.info()"],
)
def test_a_name_that_is_not_written_out_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "golongrl").mkdir()
    path = tmp_path / "golongrl" / "room.py"
    path.write_text(f"x = 1\n{line}\n")
    with pytest.raises(ValueError, match=r"room\.py:2: an event is one text"):
        list(events([path]))


def test_a_line_that_logs_is_found_wherever_it_stands(tmp_path: Path) -> None:
    folder = tmp_path / "golongrl" / "room"
    folder.mkdir(parents=True)
    path = folder / "deep.py"
    path.write_text(
        "class A:\n    async def f(self):\n        with x:\n            log.warning('a fact', uid=1, **more)\n"
    )
    [found] = events([path])
    assert (found.room, found.name, found.level, found.fields) == ("room", "a fact", "warning", ("...", "uid"))


def test_a_name_may_be_a_constant_of_this_or_another_module(tmp_path: Path) -> None:
    (tmp_path / "golongrl").mkdir()
    names, logs = tmp_path / "golongrl" / "names.py", tmp_path / "golongrl" / "logs.py"
    names.write_text('STEP: Final = "a step"\n')
    logs.write_text('OWN = "my own"\nlog.info(names.STEP)\nlog.info(OWN)\n')
    assert [event.name for event in events([names, logs])] == ["a step", "my own"]


values = st.recursive(
    st.text(max_size=3000) | st.binary(max_size=50) | st.integers() | st.floats() | st.none() | st.booleans(),
    lambda inside: st.lists(inside, max_size=5) | st.dictionaries(st.text(max_size=5), inside, max_size=5),
    max_leaves=8,
)


@given(values)
def test_a_value_is_short_and_json(value: object) -> None:
    text = json.dumps(short(value))
    assert "\\u" in text or len(text) < 40_000
    if isinstance(value, str | bytes):
        assert len(short(value)) <= 1100


def test_lists_and_arrays_are_counted() -> None:
    np = pytest.importorskip("numpy")
    assert short([1, 2, 3]) == short((1, 2, 3)) == short(np.arange(3)) == "<3 items>"
    assert short({"a": [1] * 9, "b": "x"}) == {"a": "<9 items>", "b": "x"}
    assert short(b"secret") == "<6 bytes>"


def test_a_process_writes_neither_ids_nor_long_text() -> None:
    program = (
        "import structlog; from golongrl.telemetry.logging import configure; configure('x', 'r');"
        "structlog.contextvars.bind_contextvars(uid='0-1', version=3, step=4);"
        "structlog.get_logger().error('a fact', error='said ' * 2000, rows=[11, 12, 13], uids=['0-1', '0-2'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    line = json.loads(done.stderr)
    assert (line["uid"], line["version"], line["step"], line["run"], line["service"]) == ("0-1", 3, 4, "r", "x")
    assert line["rows"] == "<3 items>"
    assert line["uids"] == ["0-1", "0-2"]
    assert len(line["error"]) < 1100
