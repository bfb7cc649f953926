"""What a command may create, overwrite and delete."""

import errno
import fcntl
import os
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl import files
from golongrl.data.construct.tables import ORDER, PIPELINE
from golongrl.errors import InputError
from golongrl.evaluation.store.claim import RECORD
from golongrl.files import Made, PlaceState
from golongrl.telemetry import run_info

MARKERS, HARMLESS = frozenset({"run.json"}), frozenset({".lock"})


@pytest.mark.parametrize(
    ("entries", "state"),
    [
        (None, PlaceState.MISSING),
        ([], PlaceState.EMPTY),
        ([".lock"], PlaceState.EMPTY),
        (["lost+found"], PlaceState.EMPTY),
        (["run.json", "anything"], PlaceState.OWN),
        (["notes.txt"], PlaceState.FOREIGN),
        ([".lock", "notes.txt"], PlaceState.FOREIGN),
        (["Run.json"], PlaceState.FOREIGN),
        ([".lock", ".0123456789ab.tmp.json", ".0123456789ab.tmp"], PlaceState.EMPTY),
        ([".0123456789ab.tmp", "notes.txt"], PlaceState.FOREIGN),
        ([".0123456789AB.tmp"], PlaceState.FOREIGN),
        (["0123456789ab.tmp"], PlaceState.FOREIGN),
        ([".git"], PlaceState.FOREIGN),
    ],
)
def test_a_folder_is_taken_only_if_it_is_new_empty_or_own(entries: list[str] | None, state: PlaceState) -> None:
    place = files.judge(Path("x"), entries, MARKERS, HARMLESS)
    assert place.state is state
    assert place.free is (state in (PlaceState.MISSING, PlaceState.EMPTY))


@given(st.sets(st.text(min_size=1)))
def test_no_folder_with_a_file_of_somebody_else_is_free(names: set[str]) -> None:
    place = files.judge(Path("x"), names, MARKERS, HARMLESS)
    assert place.free is not bool(names - HARMLESS - {"lost+found"})


def test_a_refusal_names_what_is_there() -> None:
    place = files.judge(Path("x"), ["d", "c", "b", "a"], MARKERS, HARMLESS)
    assert place.why_not("a run's") == "x holds files that are not a run's (a, b, c, ...)"


def test_a_file_and_a_link_to_nothing_are_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        assert files.look(tmp_path / name, MARKERS).state is PlaceState.NOT_A_FOLDER
    (tmp_path / "folder").mkdir()
    (tmp_path / "to-folder").symlink_to("folder")
    assert files.look(tmp_path / "to-folder", MARKERS).state is PlaceState.EMPTY
    assert files.look(tmp_path / "missing", MARKERS).state is PlaceState.MISSING


@pytest.mark.parametrize("name", ["n" * 300, "file/x"])
def test_an_impossible_name_is_an_error_of_the_system(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"File name too long|Not a directory"):
        files.look(tmp_path / name, MARKERS)


def test_undo_removes_what_was_made_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "old").write_text("old")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "precious").write_text("mine")
    made = Made()
    made.folder(tmp_path / "there")
    made.folder(tmp_path / "a" / "b", 0o700)
    for path in (tmp_path / "there" / "old", tmp_path / "there" / "new", tmp_path / "a" / "b" / "never"):
        made.file(path)
    (tmp_path / "there" / "new").write_text("new")
    made.tree(tmp_path / "kept")
    made.tree(tmp_path / "a" / "b" / "tree")
    (tmp_path / "a" / "b" / "tree" / "deep").mkdir(parents=True)
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
    made.undo()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["kept", "old", "precious", "there"]


def test_a_folder_that_got_a_file_of_somebody_else_stays(tmp_path: Path) -> None:
    made = Made()
    made.folder(tmp_path / "mine")
    (tmp_path / "mine" / "visitor").touch()
    made.undo()
    assert (tmp_path / "mine" / "visitor").exists()


def write_half(path: Path) -> None:
    with files.replacing(path) as staging:
        staging.write_text("half")
        raise RuntimeError


def test_of_a_link_in_the_place_of_an_own_folder_only_the_link_is_removed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "run.json").touch()
    (tmp_path / "own").symlink_to("disk")
    files.make_way(tmp_path / "own", MARKERS, "of a run")
    assert os.listdir(tmp_path) == ["disk"]
    assert os.listdir(tmp_path / "disk") == ["run.json"]


def test_a_file_is_replaced_in_one_step_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    path.chmod(0o640)
    with pytest.raises(RuntimeError):
        write_half(path)
    assert path.read_text() == "old"
    files.write_text(path, "new")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o640)
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_follows_the_umask_and_a_secret_does_not(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        files.write_text(tmp_path / "file", "x")
        files.write_private(tmp_path / "secret", "x")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def test_a_link_is_followed_and_a_long_name_fits(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "file")
    files.write_text(tmp_path / "link", "x")
    assert (tmp_path / "real" / "file").read_text() == "x"
    assert (tmp_path / "link").is_symlink()
    files.write_text(tmp_path / ("n" * 255), "x")
    with pytest.raises(IsADirectoryError):
        files.write_text(tmp_path / "real", "x")


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        files.write_text(pipe, "through")
        assert os.read(reader, 100) == b"through"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


LEAVE_A_STAGED_FILE = """
import os, sys
from pathlib import Path
from golongrl import files
with files.replacing(Path(sys.argv[1])) as staging:
    staging.write_text("half")
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("name", ["run.json", "pipeline.yaml", "marker", "a.b.c", ".hidden"])
def test_a_process_killed_in_its_first_write_leaves_a_folder_that_can_be_taken(tmp_path: Path, name: str) -> None:
    subprocess.run([sys.executable, "-c", LEAVE_A_STAGED_FILE, str(tmp_path / name)], check=False)
    (left,) = tmp_path.iterdir()
    assert files.look(tmp_path, MARKERS).state is PlaceState.EMPTY
    files.sweep_staged(tmp_path)
    assert left.exists()  # another process may be writing it
    os.utime(left, (0, 0))
    (tmp_path / ".0123456789ab.tmp.mine").mkdir()
    (tmp_path / "mine.tmp").touch()
    os.utime(tmp_path / "mine.tmp", (0, 0))
    files.sweep_staged(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".0123456789ab.tmp.mine", "mine.tmp"]


def test_a_lock_that_may_not_be_opened_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder was said not to be writable, which it was."""
    (tmp_path / ".lock").touch()

    def refuse(path: Path, *_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(InputError, match=rf"^{tmp_path}/\.lock: the lock of its folder cannot be opened \(Permission"):
        files.lock(tmp_path / ".lock")


def test_a_lock_is_held_by_one_and_names_it(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with files.lock(path), pytest.raises(files.LockHeldError, match=f"pid {os.getpid()}"):
        files.lock(path)
    with files.lock(path):
        assert path.read_text() == str(os.getpid())
    path.write_text("")
    files.lock(path).close()


def test_a_lock_that_was_removed_while_it_was_opened_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = tmp_path / ".lock", fcntl.flock

    def remove_first(file: TextIO, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        path.unlink()
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with files.lock(path), pytest.raises(files.LockHeldError):
        files.lock(path)


@pytest.mark.parametrize("what", ["text", "digits and more", "link", "dangling", "loop", "folder", "pipe"])
def test_what_is_no_lock_is_neither_written_to_nor_waited_for(tmp_path: Path, what: str) -> None:
    path, precious = tmp_path / ".lock", tmp_path / "precious"
    precious.write_text("mine")
    if what in ("text", "digits and more"):
        path.write_text("poetry lock" if what == "text" else "12 drummers")
    elif what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to({"link": precious, "dangling": tmp_path / "new", "loop": path}[what])
    before = path.lstat()
    with pytest.raises(files.ForeignFilesError, match="not a lock file of this program"):
        files.lock(path)
    assert (precious.read_text(), path.lstat()) == ("mine", before)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(files.NoLockError, match=f"{tmp_path}: the file system has no file locks"):
        files.lock(tmp_path / ".lock")


def test_what_is_read_is_not_written_over_under_any_name(tmp_path: Path) -> None:
    read = tmp_path / "rows.jsonl"
    read.write_text("mine")
    (tmp_path / "soft").symlink_to(read)
    (tmp_path / "hard").hardlink_to(read)
    for name in ("rows.jsonl", "soft", "hard"):
        with pytest.raises(InputError, match="this file is what is read"):
            files.refuse_input(tmp_path / name, [tmp_path / "absent", read])
    files.refuse_input(tmp_path / "new", [read])


def _fill(folder: Path, *, keep: bool) -> None:
    with files.locked_folder(folder, ".lock") as made:
        made.file(folder / "record")
        (folder / "record").touch()
        if keep:
            made.keep()
        raise InputError("no")


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("there", [False, True])
def test_a_locked_folder_is_left_as_it_was_unless_it_is_kept(tmp_path: Path, fails: bool, there: bool) -> None:
    folder = tmp_path / "deep" / "folder"
    if there:
        folder.mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="no"):
        _fill(folder, keep=not fails)
    after = [*before, folder.parent, folder, folder / ".lock", folder / "record"] if not fails else before
    assert sorted(tmp_path.rglob("*")) == sorted(set(after))
    with files.locked_folder(folder, ".lock"):
        pass
    assert (folder / ".lock").exists()


@pytest.mark.parametrize("mask", [0o002, 0o027, 0o077])
def test_a_librarys_files_get_the_mode_of_the_umask(tmp_path: Path, mask: int) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("model.safetensors", "sub/other"):
        (tmp_path / name).touch(0o600)
    (tmp_path / "link").symlink_to("/etc/hostname")
    before = os.umask(mask)
    try:
        files.follow_umask(tmp_path)
    finally:
        os.umask(before)
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("model.safetensors", "sub/other")} == {
        0o666 & ~mask
    }


def test_one_command_at_a_time_writes_a_file(tmp_path: Path) -> None:
    out = tmp_path / ("n" * 250)
    with files.sole_writer(out):
        with (
            pytest.raises(InputError, match=r"--out .*: another command \(pid \d+\) writes it now"),
            files.sole_writer(out),
        ):
            pass
        with files.sole_writer(tmp_path / "other"):
            pass
        (tmp_path / "link").symlink_to(out)
        with pytest.raises(InputError, match="another command"), files.sole_writer(tmp_path / "link"):
            pass
    assert [path.name for path in tmp_path.iterdir()] == ["link"]
    with files.sole_writer(out):
        pass


@pytest.mark.parametrize("place", ["/dev/null", "/dev/stdout"])
def test_what_is_no_file_has_any_number_of_writers(place: str) -> None:
    with files.sole_writer(Path(place)), files.sole_writer(Path(place)):
        pass


def test_a_file_that_cannot_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    refused = pytest.raises(InputError, match=r"--out .*/none/out: cannot be written: No such file")
    with refused, files.sole_writer(tmp_path / "none" / "out"):
        pytest.fail("the work began")


@pytest.mark.parametrize("place", [".", "/", "results"])
def test_a_folder_where_a_file_goes_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    with pytest.raises(InputError, match="cannot be written: Is a directory"), files.sole_writer(Path(place)):
        pytest.fail("the work began")
    assert [path.name for path in tmp_path.rglob("*")] == ["results"]


def test_a_url_is_no_folder_to_be_made_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("s3://bucket/runs", "https://user:pass@host/x", "gs:/bucket", "file:///tmp/x", "oci+x.y://a"):
        with pytest.raises(InputError, match="is a URL, and only folders of this machine"):
            files.Made().folder(Path(url))
        for parents in (True, False):
            with pytest.raises(InputError, match="is a URL"), files.sole_writer(Path(url), parents=parents):
                pytest.fail("the work began")
    assert list(tmp_path.iterdir()) == []
    Path("mine:").mkdir()
    for name in ("mine:/runs", "C:/runs", "a/b:/c", "12:30/x"):
        files.Made().folder(Path(name))
        assert Path(name).is_dir()


def test_what_a_shell_should_have_read_is_no_folder_to_be_made_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in ("~", "~/runs", "~anna/x", "$HOME/runs", "${OUT}/a"):
        with pytest.raises(InputError, match="is no folder here, and only a shell reads it"):
            files.Made().folder(Path(words))
        with pytest.raises(InputError, match="only a shell"), files.sole_writer(Path(words), parents=True):
            pytest.fail("the work began")
    assert list(tmp_path.iterdir()) == []
    for name in ("a~/b", "~ b", "$5", "~draft (1)", "x/~/y"):
        files.Made().folder(Path(name))
        assert Path(name).is_dir()


def test_a_file_that_is_protected_from_writing_is_not_renamed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kept").write_text("mine")
    monkeypatch.setattr(os, "access", lambda *_: False)  # whoever runs the test may be root
    with pytest.raises(InputError, match="cannot be written: Permission denied"), files.sole_writer(tmp_path / "kept"):
        pytest.fail("the work began")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_folders_made_for_a_file_vanish_with_a_failure(tmp_path: Path) -> None:
    for failing in (True, False):
        with suppress(ZeroDivisionError), files.sole_writer(tmp_path / "a" / "b" / "out", parents=True):
            assert (tmp_path / "a" / "b").is_dir()
            _ = 1 / 0 if failing else 0
        assert (tmp_path / "a").exists() is not failing


def test_the_next_writer_removes_what_a_killed_one_left_of_this_file_alone(tmp_path: Path) -> None:
    out, beside, other = (tmp_path / name for name in ("a.jsonl", "a-validation.jsonl", "other.jsonl"))
    left = []
    for path in (out, beside, other):
        with files.replacing(path) as staging:
            staging.write_text("half")
            left.append(staging)
    for path in left:
        path.write_text("half")
    with files.sole_writer(out, beside=[beside]):
        assert [path.exists() for path in left] == [False, False, True]


@pytest.mark.parametrize("names", [(run_info.FILE,), (RECORD, "points"), (PIPELINE, ORDER[0])])
def test_what_a_command_wrote_into_a_folder_of_input_is_no_input(tmp_path: Path, names: tuple[str, ...]) -> None:
    out = tmp_path / "a" / "out"
    (out / "below").mkdir(parents=True)
    for name in names:
        (out / name).touch()
    for name in (PIPELINE, RECORD):
        (tmp_path / "a" / name).touch()  # a person's: nothing else of a command is beside it
    mine = [tmp_path / "x.txt", tmp_path / "a" / "y.txt"]
    written = [out / "z.txt", out / "below" / "z.txt"]
    assert files.outside_outputs(tmp_path, [*mine, *written]) == mine
    assert files.outside_outputs(out, written) == written
