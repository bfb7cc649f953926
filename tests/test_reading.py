"""What a person names as input: no command waits for ever, fills the memory, or takes another encoding for UTF-8."""

import os
import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from golongrl import reading
from golongrl.data.row_files import files_of, read_records
from golongrl.errors import GolongrlError, InputError
from golongrl.evaluation.tables import open_table
from golongrl.learner.checkpoints import store
from golongrl.learner.checkpoints.store import Checkpoints
from golongrl.local import redis_server
from golongrl.recipe import RecipeError, load
from golongrl.telemetry.run_info import RunInfo
from golongrl.telemetry.watch_record import WatchRecord
from golongrl.weights import manifest


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


SPECIAL = [(_socket, "a socket"), (_device, "a device"), (Path.mkdir, "a folder")]


@pytest.mark.parametrize(("make", "words"), SPECIAL)
def test_what_has_no_content_or_no_end_is_refused(tmp_path: Path, make: Callable[[Path], None], words: str) -> None:
    make(tmp_path / "x")
    line = re.escape(f"{tmp_path / 'x'}: is {words}, not a file")
    with pytest.raises(InputError, match=line):
        reading.read_text(tmp_path / "x", 100)
    with pytest.raises(InputError, match=line):
        reading.refuse_special(tmp_path / "x")
    with pytest.raises(RecipeError, match=line):
        load(str(tmp_path / "x"))


@pytest.mark.parametrize("make", [_pipe, _socket, _device])
@pytest.mark.parametrize("name", ["x.jsonl", "x.parquet"])
def test_rows_are_in_plain_files(tmp_path: Path, make: Callable[[Path], None], name: str) -> None:
    make(tmp_path / name)
    line = r"is a (pipe|socket|device), not a file"
    with pytest.raises(InputError, match=rf"data .*{re.escape(name)}: {line}"):
        files_of(tmp_path / name)
    # In a folder it does not hide the others.
    assert [where for where, found in read_records(tmp_path) if re.match(line, found.reason)] == [
        f"data {tmp_path / name}"
    ]
    with pytest.raises(InputError, match=line):
        open_table(tmp_path / name)


def test_a_pipe_is_read(tmp_path: Path) -> None:
    _pipe(tmp_path / "pipe")
    late = threading.Timer(0.2, (tmp_path / "pipe").write_text, ["a: 1\n" * 50_000])
    late.start()
    assert reading.read_text(tmp_path / "pipe", 1 << 20) == "a: 1\n" * 50_000
    late.join()


def test_a_pipe_that_nothing_is_written_to_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_SILENCE_S", 0.05)
    _pipe(tmp_path / "pipe")
    line = re.escape(f"{tmp_path / 'pipe'}: is a pipe, and nothing was written to it for 0.05 s")
    with pytest.raises(InputError, match=line):
        reading.read_text(tmp_path / "pipe", 100)
    writer = os.open(tmp_path / "pipe", os.O_RDWR)  # and one that opens it only
    with pytest.raises(InputError, match=line):
        reading.read_text(tmp_path / "pipe", 100)
    os.close(writer)


def test_a_pipe_that_is_waited_for_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reading, "_SILENCE_S", 0.06)
    monkeypatch.setattr(reading, "_TOLD_S", 0.03)
    _pipe(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"nothing was written to it for 0\.06 s"):
        reading.read_text(tmp_path / "pipe", 100)
    assert capfd.readouterr().err == f"waiting for {tmp_path / 'pipe'}: a pipe, silent for 0.03 s\n"


@pytest.mark.parametrize("text", ["", "ä" * 50, "x" * 100])
def test_a_text_is_read_up_to_its_bound(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file"
    path.write_text(text, "utf-8")
    assert reading.read_text(path, 100) == text
    path.write_text(text + "x" * (101 - len(text.encode())), "utf-8")
    with pytest.raises(InputError, match=re.escape(f"{path}: longer than 100 bytes")):
        reading.read_text(path, 100)


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("utf-16", "it is UTF-16"),
        ("utf-32", "it is UTF-32"),
        ("latin-1", "byte 0xe9 in line 2"),
        ("cp1252", "byte 0xe9 in line 2"),
        ("cp037", "byte 0x"),
    ],
)
def test_another_encoding_is_named(tmp_path: Path, encoding: str, words: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes("name: x\n# caf\u00e9\n".encode(encoding))
    with pytest.raises(RecipeError) as caught:
        load(str(path))
    assert str(caught.value).startswith(f"recipe {path}: not UTF-8 ({words}")
    assert str(caught.value).endswith("; save it as UTF-8")


def _tracker(folder: Path) -> object:
    return Checkpoints(folder).latest()


@pytest.mark.parametrize(
    ("name", "read", "named"),
    [
        ("latest_checkpointed_iteration.txt", _tracker, True),
        ("learner.json", store.glance, True),
        ("run.json", RunInfo.read, True),
        ("watch.json", WatchRecord.read, False),
        ("manifest.json", manifest.read, False),
        ("password", redis_server.password_of, False),
    ],
)
def test_a_small_file_of_a_run_that_is_absurdly_large_is_not_read(
    tmp_path: Path, name: str, read: Callable[[Path], object], named: bool
) -> None:
    """It was read whole: a MemoryError, or a machine without memory."""
    with (tmp_path / name).open("wb") as file:
        file.truncate(1 << 40)
    if not named:
        read(tmp_path)
        return
    with pytest.raises(GolongrlError, match=f"{name}.*File too large"):
        read(tmp_path)
