"""What a user sees when the input is wrong: one line that names the thing, exit 2, and nothing started or left."""

import fcntl
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer

from golongrl import cli
from golongrl.recipe import dump, load


@pytest.fixture
def golongrl(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run the command line in this process: arguments -> (exit code, stdout, stderr)."""

    # Logging belongs to the process, and this one is pytest's.
    monkeypatch.setattr("golongrl.telemetry.logging.configure", lambda *_, **__: None)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["golongrl", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return run


def small_corpus(folder: Path) -> Path:
    folder.mkdir()
    (folder / "note.txt").write_text("A single short line.\n")
    return folder


def hollow_model(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["nosuch"], "recipe nosuch: no such file or packaged recipe"),
        ([""], "train: the argument after it is empty"),
        (["quickstart", "--set", "queue.max_stalness=0"], "queue.max_stalness; did you mean queue.max_staleness?"),
        (["quickstart", "--name", "No Good"], "--name No Good"),
        (["quickstart", "--resume", "--name", "never"], "--resume: there is no run never in "),
        (["quickstart", "--resume"], " has no run; give its --name"),
        (["quickstart", "--set", "data.corpus=/no/such/folder"], "/no/such/folder"),
        (["quickstart", "--set", "data.corpus=null", "--set", "data.train=/no/file.jsonl"], "/no/file.jsonl"),
        (["quickstart", "--set", "model.path=/no/model"], "model /no/model: no such folder"),
        (["quickstart", "--engine", "sglang", "--sglang-venv", "/no/venv"], "run `make sglang`"),
        (["quickstart", "--redis-url", "redis://127.0.0.1:1/0"], "--redis-url redis://127.0.0.1:1/0"),
    ],
)
def test_wrong_input_is_one_line(golongrl, tmp_path: Path, arguments: list[str], names: str) -> None:
    name = [] if {"--name", "--resume"} & {*arguments} else ["--name", "demo"]
    code, _, err = golongrl("train", *arguments, *name, "--out", tmp_path)
    lines = [line for line in err.splitlines() if line.startswith("error:")]
    assert code == 2
    assert len(lines) == 1
    assert names in lines[0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", [(), ("--release", "r", "--name", "n")])
def test_status_is_of_one_run(golongrl, given: tuple[str, ...]) -> None:
    code, out, err = golongrl("status", *given)
    assert (code, out) == (2, "")
    assert err.startswith("error: status: ")
    assert "--release" in err


def test_a_corpus_that_is_too_small_is_named(golongrl, tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "texts")
    code, _, err = golongrl("train", "quickstart", "--set", f"data.corpus={corpus}", "--out", tmp_path / "runs")
    assert code == 2
    assert f"error: corpus {corpus}" in err
    assert not list((tmp_path / "runs").glob("*"))


def test_a_model_without_weights_is_named(golongrl, tmp_path: Path) -> None:
    model = hollow_model(tmp_path / "hollow")
    code, _, err = golongrl("train", "quickstart", "--set", f"model.path={model}", "--out", tmp_path / "runs")
    assert code == 2
    assert f"model {model}: no weights" in err


def test_a_port_in_use_is_named(golongrl, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = golongrl("train", "quickstart", "--base-port", str(port), "--out", tmp_path / "runs")
    assert code == 2
    assert f"port {port} for redis" in err


@pytest.mark.parametrize(
    "words",
    [
        ("train", "--engines", "100000"),
        ("reward", "serve", "--workers", "100000000"),
        ("recipe", "check", "qwen3-4b-grpo", "--gpu-memory", "inf"),
    ],
)
def test_a_number_beyond_any_machine_is_bad_usage(golongrl, words: tuple[str, ...]) -> None:
    code, _, err = golongrl(*words)
    assert code == 2
    assert f"Invalid value for '{words[-2]}'" in err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("nosuch",), "No such command 'nosuch'; see `golongrl --help`"),
        (("train", "--bad"), "No such option: --bad; see `golongrl train --help`"),
        (("train", "--engines", "two"), "see `golongrl train --help`"),
        (("train", "a", "b"), "Got unexpected extra argument"),
        (("train", "--engine", "vllm"), "Invalid value for '--engine'"),
        (("queue", "stats"), "Missing option '--redis-url'"),
        (("recipe", "show"), "Missing argument"),
        (("recipe", "nosuch"), "see `golongrl recipe --help`"),
        (("data", "build", "quickstart"), "Missing option '--out'"),
        (("train", "--name"), "--name"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(golongrl, words: tuple[str, ...], line: str) -> None:
    code, out, err = golongrl(*words)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert line in err


@pytest.mark.parametrize("words", [(), ("recipe",), ("queue",), ("data",), ("render",), ("deploy",)])
def test_a_group_without_a_command_shows_its_help(golongrl, words: tuple[str, ...]) -> None:
    code, out, err = golongrl(*words)
    assert (code, err) == (2, "")
    assert "Usage:" in out


def test_a_report_of_no_run_is_named(golongrl, tmp_path: Path) -> None:
    code, _, err = golongrl("report", tmp_path)
    assert (code, err) == (2, f"error: report {tmp_path}: no run in this folder (it has no recipe.yaml)\n")


def test_a_second_run_of_the_same_name_says_so(golongrl, tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "recipe.yaml").write_text(dump(load("quickstart")))
    code, _, err = golongrl("train", "quickstart", "--name", "demo", "--out", tmp_path)
    assert code == 2
    assert "run demo:" in err
    assert "--resume" in err
    assert (tmp_path / "demo" / "recipe.yaml").exists()


@pytest.mark.parametrize("words", [["train", "--out", ""], ["data", "build", "quickstart", "--out="]])
def test_an_empty_path_is_not_the_current_folder(golongrl, words: list[str]) -> None:
    """An unset variable of a shell: `--out "$RUNS"`. The run stood among the files of whoever started it."""
    assert golongrl(*words) == (2, "", "error: --out: its value is empty\n")
    assert golongrl("report", "")[2] == "error: report: the argument after it is empty\n"


def test_an_options_path_may_begin_at_home(golongrl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    code, _, err = golongrl("data", "build", "quickstart", "--out=~/p.jsonl", "--set=data.corpus=~/none")
    assert (code, err) == (2, f"error: corpus {tmp_path}/none: no such folder\n")
    small = ("--set=data.prompts=9", "--set=data.validation_prompts=0", "--set=learner.test_freq=0")
    code, out, err = golongrl("data", "build", "quickstart", "--out=~/p.jsonl", *small)
    assert (code, err) == (0, "")
    assert out == f"{tmp_path}/p.jsonl: 9 rows\n"


def test_every_command_has_help_with_an_example_and_says_what_its_options_are(golongrl) -> None:
    golongrl("--version")
    left, seen = [([], typer.main.get_command(cli.app))], 0
    while left:
        words, command = left.pop()
        seen += 1
        children = getattr(command, "commands", {})
        left += [([*words, name], child) for name, child in children.items()]
        code, out, _ = golongrl(*words, "--help")
        assert code == 0
        begun = f"Example: golongrl {' '.join(words)}"
        assert begun in " ".join(out.split()), words
        for option in command.params:
            assert getattr(option, "help", None), (words, option.name)
    assert seen > 20


def test_a_recipe_is_listed_shown_and_checked(golongrl) -> None:
    assert "qwen3-4b-tmn-reweight" in golongrl("recipe", "list")[1]
    assert "groups_per_step: 128" in golongrl("recipe", "show", "qwen3-4b-grpo", "--resolved")[1]
    assert "quickstart: OK" in golongrl("recipe", "check", "quickstart", "--set", "queue.max_staleness=0")[1]


def test_a_recipe_is_held_against_gpus_without_any(golongrl) -> None:
    paper = ("recipe", "check", "qwen3-4b-tmn-reweight")
    code, out, _ = golongrl(*paper, "--gpus", "64", "--gpu-memory", "80")
    assert code == 0
    assert "4.02 B parameters over 64 ranks" in out
    assert "GiB  in all" in out
    code, _, err = golongrl(*paper, "--gpu-memory", "8")
    assert code == 2
    assert err.startswith("error: a rank needs about")
    assert "the device has 8.0" in err
    code, _, err = golongrl(*paper, "--gpus", "6")
    assert code == 2
    assert "does not divide learner.ranks 6" in err
    code, _, err = golongrl(*paper, "--gpus", "64", "--set", "model.path=nobody/nothing")
    assert (code, len(err.splitlines())) == (2, 1)
    assert "nobody/nothing" in err


def content(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder: name -> bytes (None: a folder)."""
    return {str(p.relative_to(folder)): None if p.is_dir() else p.read_bytes() for p in sorted(folder.rglob("*"))}


FAILING = [
    ("--redis-url", "redis://127.0.0.1:1/0"),
    ("--set", "data.corpus=null", "--set", "data.train=/no/file.jsonl"),
    ("--set", "model.path=/no/model"),
    ("--resume",),
    (),
]


@pytest.mark.parametrize("wrong", FAILING)
def test_a_folder_with_files_of_its_user_is_left_alone(golongrl, tmp_path: Path, wrong: tuple[str, ...]) -> None:
    docs = tmp_path / "docs"
    (docs / "data" / "train").mkdir(parents=True)
    for name in ("thesis.txt", "data/train/rows.arrow", "data/prepared", ".hidden"):
        (docs / name).write_text("precious")
    before = content(tmp_path)
    code, _, err = golongrl("train", "quickstart", "--name", "docs", "--out", tmp_path, *wrong)
    assert code == 2
    assert len([line for line in err.splitlines() if line.startswith("error:")]) == 1
    assert str(docs) in err or "--resume" in err
    assert content(tmp_path) == before


@pytest.mark.parametrize("wrong", FAILING[:3])
def test_an_empty_folder_stays_when_a_start_fails(golongrl, tmp_path: Path, wrong: tuple[str, ...]) -> None:
    (tmp_path / "mine").mkdir(mode=0o750)
    code, *_ = golongrl("train", "quickstart", "--name", "mine", "--out", tmp_path, *wrong)
    assert code == 2
    assert content(tmp_path) == {"mine": None}


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        (("--set", "queue.max_staleness=9"), "can only change learner"),
        (("--set", "learner.lr=-1"), "learner.lr"),
        (("--redis-url", "redis://:secret-word@127.0.0.1:1/0"), "--redis-url redis://127.0.0.1:1/0"),
        (("--base-port", "70000"), "port 70000"),
    ],
)
def test_a_resume_that_is_refused_changes_nothing(golongrl, tmp_path: Path, wrong: tuple[str, ...], names: str) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "recipe.yaml").write_text(dump(load("quickstart")))
    (tmp_path / "demo" / ".lock").write_text("1")
    before = content(tmp_path)
    code, _, err = golongrl(
        "train", "quickstart", "--name", "demo", "--out", tmp_path, "--resume", "--set", "learner.steps=9", *wrong
    )
    assert code == 2
    assert names in err
    assert "secret-word" not in err
    after = content(tmp_path)
    assert after.pop("demo/.lock") is not None
    assert after == {name: value for name, value in before.items() if name != "demo/.lock"}


def test_a_resume_of_a_running_run_changes_nothing(golongrl, tmp_path: Path) -> None:
    demo = tmp_path / "demo"
    demo.mkdir()
    (demo / "recipe.yaml").write_text(dump(load("quickstart")))
    with (demo / ".lock").open("w") as lock:
        lock.write("4711")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = content(tmp_path)
        for words in (("--resume", "--set", "learner.steps=9"), ("--resume",), ()):
            code, _, err = golongrl("train", "quickstart", "--name", "demo", "--out", tmp_path, *words)
            assert code == 2
            assert "running already (pid 4711)" in err or "exists; continue it with --resume" in err
            assert content(tmp_path) == before


@pytest.mark.parametrize(
    "name", ["../up", "a/b", "", " ", "A", "é", "a b", "a" * 64, "a" * 5000, "-x", ".", "..", "a\nb", "\udcff"]
)
def test_a_name_that_is_no_name_is_refused(golongrl, tmp_path: Path, name: str) -> None:
    code, _, err = golongrl("train", "quickstart", f"--name={name}", "--out", tmp_path)
    assert code == 2
    assert "--name" in err
    assert list(tmp_path.iterdir()) == []
    assert max(map(len, err.splitlines())) < 300


@pytest.mark.parametrize("out", ["file", "file/below", "n" * 300, "link", "line\nbreak", "/proc/nowhere", "\udcff"])
def test_an_out_that_cannot_be_a_folder_is_one_line(golongrl, tmp_path: Path, out: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.iterdir())
    code, _, err = golongrl("train", "quickstart", "--name", "demo", "--out", tmp_path / out)
    assert code == 2
    assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("entry", ["train/notes.txt", "preparing.txt", "rows.jsonl"])
def test_prepared_data_goes_into_a_folder_of_its_own(golongrl, tmp_path: Path, entry: str) -> None:
    (tmp_path / "mine" / entry).parent.mkdir(parents=True)
    (tmp_path / "mine" / entry).write_text("precious")
    small = ("--set=data.prompts=9", "--set=data.validation_prompts=0", "--set=learner.test_freq=0")
    before = content(tmp_path)
    code, _, err = golongrl("data", "prepare", "quickstart", "--out", tmp_path / "mine", *small)
    assert (code, content(tmp_path)) == (2, before)
    assert f"--out {tmp_path}/mine: {tmp_path}/mine holds files that are not of prepared data" in err
    for _ in range(2):
        assert golongrl("data", "prepare", "quickstart", "--out", tmp_path / "new", *small)[0] == 0
    assert golongrl("data", "prepare", "quickstart", "--out", tmp_path / "new", "--set=seed=9", *small)[0] == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [".lock", "prepared.json", "train"]


def test_a_report_does_not_replace_a_page_of_its_user(golongrl, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(dump(load("quickstart")))
    (tmp_path / "report.html").write_text("<html>my own page</html>")
    assert golongrl("report", tmp_path)[0] == 2
    assert (tmp_path / "report.html").read_text() == "<html>my own page</html>"
    (tmp_path / "report.html").unlink()
    for _ in range(2):
        assert golongrl("report", tmp_path)[0] == 0


_STOPPED_WHILE_LOADING = """
import signal, sys
from golongrl.__main__ import main

class Finder:
    def find_spec(self, name, *_):
        if name == "golongrl.cli":
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Finder())
{before}
sys.argv = ["golongrl", "--version"]
main()
"""


def test_ctrl_c_while_the_command_line_is_loaded_is_no_traceback() -> None:
    script = _STOPPED_WHILE_LOADING.format(before="")
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout, ended.stderr) == (-signal.SIGINT, "", "")


def test_a_command_in_the_background_stays_deaf_to_ctrl_c() -> None:
    script = _STOPPED_WHILE_LOADING.format(before="signal.signal(signal.SIGINT, signal.SIG_IGN)")
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.full),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.full),
    ],
)
def test_a_signal_before_the_run_began_leaves_nothing(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """While prompts are being built, which these take minutes for."""
    command = [
        sys.executable,
        "-m",
        "golongrl",
        "train",
        "quickstart",
        "--name",
        "demo",
        "--out",
        str(tmp_path / "runs"),
    ]
    process = subprocess.Popen([*command, "--set", "data.prompts=5000000"], stderr=subprocess.PIPE, text=True)
    try:
        while not list((tmp_path / "runs" / "demo" / "data").glob("preparing.*")):
            assert process.poll() is None
            time.sleep(0.1)
        process.send_signal(number)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, err) == (code, f"error: stopped by {number.name}; the run had not begun\n")
    assert list(tmp_path.iterdir()) == []
