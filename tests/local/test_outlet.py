"""A run's output: whoever reads it, or does not, holds up nothing."""

import io
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

import pytest

from golongrl.local import outlet as module
from golongrl.local.outlet import Outlet, outlet

_LINES = """
import sys
from golongrl.local.outlet import outlet
from golongrl.local.progress import Display, Screen
with outlet(sys.stdout) as out, Display(Screen(file=out), live=False) as display:
    sys.stdin.readline()
    for number in range(50_000):
        display.say(f"line {number}")
    print("end", file=sys.stderr, flush=True)
    sys.stdin.readline()
"""


def _started() -> subprocess.Popen[str]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", _LINES], text=True, **pipes)


def _pipe(process: subprocess.Popen[str], name: str) -> IO[str]:
    pipe = getattr(process, name)
    assert pipe is not None
    return pipe  # type: ignore[no-any-return]


def test_a_reader_that_does_not_read_holds_up_nothing_and_gets_the_rest_when_it_does() -> None:
    """Half a megabyte: a pipe holds an eighth of it."""
    process = _started()
    _pipe(process, "stdin").write("go\n")
    _pipe(process, "stdin").flush()
    assert _pipe(process, "stderr").readline() == "end\n"
    read, err = process.communicate("done\n", timeout=60)
    assert (process.returncode, err) == (0, "")
    assert read.splitlines() == [f"line {number}" for number in range(50_000)]


@pytest.mark.full
def test_a_reader_that_has_left_ends_nothing() -> None:
    process = _started()
    _pipe(process, "stdout").close()
    process.stdout = None
    _, err = process.communicate("go\ndone\n", timeout=60)
    assert (process.returncode, err) == (0, "end\n")


def test_what_nobody_reads_is_bounded_and_its_loss_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_CHARS", 10)
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    # Fills the pipe, so that the outlet's thread waits.
    os.set_blocking(writing, False)
    filled = 0
    with suppress(BlockingIOError):
        while True:
            filled += os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    with open(writing, "w", encoding="utf-8") as stream:
        out = Outlet(stream)
        for _ in range(5):
            out.write("12345678\n")
        os.set_blocking(reading, True)
        with open(reading, encoding="utf-8") as reader:
            assert reader.read(filled) == "x" * filled
            out.drain()
            stream.close()
            left = reader.read()
    # One or two of the five: the thread may have taken the first before the second came.
    kept = left.count("12345678\n")
    assert kept in (1, 2)
    assert left.endswith(f"({(5 - kept) * 9} characters of output were dropped: nobody read them)\n")


def test_a_stream_without_a_descriptor_is_written_to() -> None:
    stream = io.StringIO()
    with outlet(stream) as out:
        out.write("line\n")
    assert stream.getvalue() == "line\n"


def test_a_sign_that_the_terminal_cannot_show_is_written_as_the_stream_writes_it(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w", encoding="ascii", errors="backslashreplace") as stream, outlet(stream) as out:
        out.write("0.4 \u2192 0.6\n")
    assert (tmp_path / "out").read_text("ascii") == "0.4 \\u2192 0.6\n"
