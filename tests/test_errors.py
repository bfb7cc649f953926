"""Where an error becomes a line and an exit code: a path that the system refuses is never a traceback."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from golongrl.data.construct.generate_models import AskedModel, PassratePool
from golongrl.errors import (
    NO_SPACE_EXIT,
    GolongrlError,
    InputError,
    NoSpaceError,
    no_space,
    one_line,
    printable,
    show_defect,
    url_without_secret,
    without_secrets,
    writing_to,
)
from golongrl.evaluation.run.endpoint import base

LONG = "x" * 300


def ended(error: BaseException, capsys: pytest.CaptureFixture[str], *, service: bool = False) -> tuple[object, str]:
    with pytest.raises(SystemExit) as exit_, one_line(service=service):
        raise error
    return exit_.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    "number", [errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EROFS, errno.ENOENT]
)
def test_a_path_that_the_system_refuses_is_one_line(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    error = OSError(number, os.strerror(number), "/data/" + "x" * 5000)
    code, line = ended(error, capsys)
    assert code == 2
    assert line.startswith("error: /data/xxx")
    assert line.endswith(f"...: {os.strerror(number)}\n")
    assert len(line) < 300
    restarted = number not in (errno.ELOOP, errno.ENAMETOOLONG)
    assert ended(error, capsys, service=True)[0] == (1 if restarted else 2)


def test_a_full_disk_is_one_line_wherever_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    error = OSError(errno.ENOSPC, "No space left on device", "/data/x/file")
    assert ended(error, capsys) == (1, "error: no space left on /data/x\n")
    assert ended(error, capsys, service=True) == (NO_SPACE_EXIT, "error: no space left on /data/x\n")
    assert ended(NoSpaceError("no space left on /d"), capsys, service=True)[0] == NO_SPACE_EXIT


@pytest.mark.parametrize(
    "error", [OSError(errno.ECONNREFUSED, "refused"), OSError("?"), OSError(errno.ENOENT, "gone", 3)]
)
def test_what_is_of_no_path_keeps_its_traceback(error: OSError) -> None:
    with pytest.raises(type(error)) as raised, one_line():
        raise error
    assert raised.value is error


def test_an_error_of_ours_is_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(InputError("redis://:hush@h"), capsys) == (2, "error: redis://:***@h\n")


COMMANDS = [
    ("recipe", "check", "{}"),
    ("recipe", "show", "{}"),
    ("report", "{}"),
    ("status", "--name", "q", "--out", "{}"),
    ("train", "quickstart", "--name", "q", "--out", "{}"),
    ("train", "quickstart", "--name", "q", "--out", "here", "--set", "model.path={}"),
    ("data", "check", "{}"),
    ("data", "check", "{}.jsonl"),
    ("data", "stats", "{}", "--model", "builtin:quickstart"),
    ("data", "build", "quickstart", "--out", "{}.jsonl"),
    ("reward", "score", "{}"),
    ("engine", "--model-path", "{}"),
    ("render", "rayjob", "{}"),
]


@pytest.mark.parametrize(
    ("command", "path"), [*((command, LONG) for command in COMMANDS), *((command, "loop") for command in COMMANDS[:2])]
)
def test_every_command_that_takes_a_path_ends_in_one_line(command: tuple[str, ...], path: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for suffix in (".jsonl", ".yaml"):
        (tmp_path / f"loop{suffix}").symlink_to(tmp_path / f"loop{suffix}")
    done = subprocess.run(
        [sys.executable, "-m", "golongrl", *(word.format(path) for word in command)],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr[-2000:]
    assert done.stderr.startswith("error: ")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["loop", "loop.jsonl", "loop.yaml"]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&-"])
def test_a_command_whose_streams_are_closed_ends_as_others_do(closed: str, tmp_path: Path) -> None:
    command = f"{sys.executable} -m golongrl train nothing {closed}"
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )  # fmt: skip
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr[-2000:]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rollout-1: ünïcode — 日本 ✓", "rollout-1: ünïcode — 日本 ✓"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("no\u00a0break", "no\u00a0break"),
        ("\x1b[2J\x1b[31mred", "?[2J?[31mred"),
        ("\x1b]0;title\x07", "?]0;title?"),
        ("a\rb\x08c\x7f\x9b31m", "a?b?c??31m"),
        ("right\u202eto left", "right?to left"),
        ("\udcff", "?"),
    ],
)
def test_a_terminal_is_shown_nothing_that_it_would_obey(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_an_errors_line_is_printable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), one_line():
        raise InputError("worker \x1b[31mevil")
    assert capsys.readouterr().err == "error: worker ?[31mevil\n"


def test_a_name_with_a_line_break_does_not_look_like_a_line_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), one_line():
        raise InputError("data x\nerror: all is lost\n.jsonl: 1 bad row\n  row 1: empty\n  row 2: too long")
    assert capsys.readouterr().err.splitlines() == [
        "error: data x?error: all is lost?.jsonl: 1 bad row", "  row 1: empty", "  row 2: too long"
    ]  # fmt: skip


def test_a_value_of_thousands_of_characters_does_not_hide_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), one_line():
        raise InputError(f"{'a/' * 2000}: no such file; {'b' * 900}")
    assert capsys.readouterr().err == f"error: {'a/' * 250}... no such file; {'b' * 900}\n"


def test_a_defects_traceback_has_no_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError("cannot reach redis://:hidden@h:1")
    except ValueError as error:
        show_defect(type(error), error, error.__traceback__)
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "hidden" not in said


@pytest.mark.parametrize(
    "url",
    ["http://me:hidden@h/v1", "http://h/v1?api_key=hidden", "redis://:hidden@h:1/0", "https://hidden@h/v1",
     "http://h/v1?X-Amz-Signature=hidden"],
)  # fmt: skip
def test_a_url_that_is_kept_has_no_secret(url: str) -> None:
    """It would stand in manifests, reports and logs."""
    with pytest.raises(ValueError, match="give it by its environment variable") as error:
        url_without_secret(url)
    assert "hidden" not in str(error.value)
    with pytest.raises(GolongrlError, match="environment variable"):
        base(url)
    for section, key in ((AskedModel, "url"), (PassratePool, "redis_url")):
        with pytest.raises(ValidationError, match="environment variable"):
            section.model_validate({key: url, "model": "m"})
    assert url_without_secret("http://h:8000/v1?x=1") == "http://h:8000/v1?x=1"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE, errno.EFBIG])
@pytest.mark.parametrize("path", ["/data/file", None])
def test_what_the_machine_lacks_is_one_line_and_may_be_tried_again(
    number: int, path: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = os.strerror(number)
    error = OSError(number, reason) if path is None else OSError(number, reason, path)
    for service in (False, True):
        code, line = ended(error, capsys, service=service)
        assert code == 1
        assert line.startswith("error: ")
        assert line.count("\n") == 1
        assert path is None or path in line


def test_an_option_is_no_part_of_the_place_that_is_full() -> None:
    with pytest.raises(NoSpaceError, match=r"^no space left on /data/x$"), writing_to("--out /data/x"):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [(errno.EMFILE, GolongrlError, 1), (errno.EFBIG, GolongrlError, 1), (errno.EACCES, InputError, 2)],
)
def test_what_the_machine_lacks_while_writing_is_no_wrong_input(
    number: int, kind: type[GolongrlError], code: int
) -> None:
    """The same command may work later."""
    with pytest.raises(kind, match=r"^--out /x: cannot be written: ") as refused, writing_to("--out /x"):
        raise OSError(number, os.strerror(number))
    assert refused.value.exit_code == code


@pytest.mark.parametrize("word", ["x", "ab+.-", "redis", "a1"])
def test_a_long_word_is_printed_in_linear_time(word: str) -> None:
    """A megabyte took hours: the start of a URL was looked for from each of its characters."""
    assert without_secrets(word * (1_000_000 // len(word)))


@pytest.mark.parametrize(
    ("bytes_left", "files_left", "files", "words"),
    [(900, 2, 60, "but for no more files"), (0, 2, 60, ""), (0, 50, 60, ""), (900, 0, 0, "")],
)
def test_a_disk_that_is_full_of_files_is_not_said_to_be_full_of_bytes(
    bytes_left: int, files_left: int, files: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems (btrfs) count no files."""
    found = os.statvfs_result((512, 512, 1000, bytes_left, bytes_left, files, files_left, files_left, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: found)
    said = no_space("/runs")
    assert said.startswith("no space left on /runs")
    assert (words in said) if words else said == "no space left on /runs"
