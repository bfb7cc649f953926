"""`golongrl data`, as a person calls it."""

import json
import re

import pytest
from typer.testing import CliRunner

from golongrl.data.command import app, bars
from golongrl.data.errors import DataError
from golongrl.data.prepared import Prepared

RUN = CliRunner()


def call(*words):
    return RUN.invoke(app, list(map(str, words)))


@pytest.mark.parametrize("command", ["build", "prepare", "check", "stats", "construct", "diff"])
def test_help_has_an_example(command):
    assert f"golongrl data {command}" in " ".join(call(command, "--help").output.split())


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_built_data_is_good_and_counted(tmp_path, suffix):
    out = tmp_path / f"prompts.{suffix}"
    made = call("build", "quickstart", "--out", out, "--set", "data.prompts=18", "--set", "data.validation_prompts=9")
    assert made.exit_code == 0, made.output
    assert (tmp_path / f"prompts-validation.{suffix}").is_file()
    checked = call("check", out)
    assert checked.exit_code == 0
    assert "18 rows, all good" in checked.output
    counted = call("stats", out, "--model", "builtin:quickstart").output
    for task, metric in (("T1", "EM"), ("T5", "IoU"), ("T9", "ROUGE-L")):
        assert any(line.split()[:3] == [task, metric, "2"] for line in counted.splitlines()), counted
    assert any(line.split()[:2] == ["all", "18"] for line in counted.splitlines())


def test_check_lists_bad_rows_and_fails(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({"data_source": "EM"}) + "\n", "utf-8")
    result = call("check", path)
    assert f"{path} row 1: missing key prompt" in result.output
    assert isinstance(result.exception, DataError)
    assert "1 of 1 rows cannot be used" in str(result.exception)


@pytest.mark.parametrize("command", ["check", "stats"])
def test_a_long_file_is_told_while_it_is_read(tmp_path, monkeypatch, command):
    monkeypatch.setattr("golongrl.data.construct.progress.EVERY_S", 0.001)
    (tmp_path / "rows.jsonl").write_text("{}\n" * 5000)
    result = call(command, tmp_path / "rows.jsonl")
    assert re.search(r"rows\.jsonl: \d+ rows read, \d+ of them cannot be used", result.output)


def test_no_rows_are_said(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    for command in ("check", "stats"):
        assert str(call(command, tmp_path / "empty.jsonl").exception) == f"data {tmp_path}/empty.jsonl: no rows"


def test_stats_say_where_the_faults_are_listed_when_no_row_is_good(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_bytes("{}".encode("utf-16"))
    assert str(call("stats", path).exception) == (
        f"data {path}: 1 of 1 rows cannot be used (1 not readable); `golongrl data check {path}` lists them"
    )


def test_prepare_says_that_the_rows_do_not_reach_the_steps(tmp_path):
    rows, small = tmp_path / "rows.jsonl", ("--set", "data.prompts=9", "--set", "data.validation_prompts=0")
    assert call("build", "quickstart", "--out", rows, *small).exit_code == 0
    read = ("--set", "data.corpus=null", "--set", f"data.train={rows}")
    made = call("prepare", "quickstart", "--out", tmp_path / "data", *read)
    assert "warning: 9 rows x data.epochs 1 at queue.groups_per_step 18 are at most 1 steps" in made.output


@pytest.mark.parametrize("command", ["build", "prepare"])
def test_a_place_that_cannot_be_written_is_named(tmp_path, command):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "prompts.jsonl"
    small = ("--set", "data.prompts=9", "--set", "data.validation_prompts=0", "--set", "learner.test_freq=0")
    error = call(command, "quickstart", "--out", out, *small).exception
    assert isinstance(error, DataError)
    assert str(error).startswith(f"--out {out}: cannot be written: ")


def test_a_file_beside_out_that_nobody_named_is_not_replaced(tmp_path):
    mine, rows = tmp_path / "rows-validation.jsonl", tmp_path / "source.jsonl"
    mine.write_text("mine")
    small = ("--set", "data.prompts=9", "--set", "data.validation_prompts=0", "--set", "learner.test_freq=0")
    assert call("build", "quickstart", "--out", rows, *small).exit_code == 0
    read = [word for key in ("train", "validation") for word in ("--set", f"data.{key}={rows}")]
    out = tmp_path / "rows.jsonl"
    words = ("build", "quickstart", "--out", out, "--set", "data.corpus=null", *read)
    assert f"{mine}, which would be written too" in str(call(*words).exception)
    assert (mine.read_text(), out.exists()) == ("mine", False)
    mine.unlink()
    assert [call(*words).exit_code for _ in range(2)] == [0, 0]


def test_bars():
    assert bars([0, 0, 0, 0, 9], 9, bins=2) == "█▃"
    assert bars([], 10, bins=3) == "   "


def test_prepared_data_opens_and_is_made_once(tmp_path):
    words = (
        "prepare",
        "quickstart",
        "--out",
        tmp_path,
        "--set",
        "data.prompts=18",
        "--set",
        "data.validation_prompts=0",
    )
    said = call(*words)
    assert said.exit_code == 0
    assert said.output.startswith("train: 18 rows, "), "and no record of a log"
    made = (tmp_path / "train").stat().st_mtime_ns
    assert len(Prepared.open(tmp_path / "train")) == 18
    assert call(*words).exit_code == 0
    assert (tmp_path / "train").stat().st_mtime_ns == made


def rows_file(path, bad):
    """Two rows of the quickstart, and bad ones behind them."""
    assert call("build", "quickstart", "--out", path, "--set", "data.prompts=9", *NO_VALIDATION).exit_code == 0
    path.write_text(path.read_text("utf-8") + "".join(f"{line}\n" for line in bad), "utf-8")
    return path


NO_VALIDATION = ("--set", "data.validation_prompts=0", "--set", "learner.test_freq=0")


@pytest.mark.parametrize("where", ["train", "validation"])
def test_build_writes_nothing_when_it_refuses(tmp_path, where):
    bad = rows_file(tmp_path / "bad.jsonl", ['{"data_source": "EM"}'])
    data = ("--set", f"data.{where}={bad}", *(("--set", "data.corpus=null") if where == "train" else ()))
    out = tmp_path / "out" / "prompts.jsonl"
    out.parent.mkdir()
    (out.parent / "prompts.jsonl").write_text("mine")
    refused = call("build", "quickstart", "--out", out, "--set", "data.prompts=9", *NO_VALIDATION, *data).exception
    assert isinstance(refused, DataError)
    assert "1 of 10 rows cannot be used" in str(refused)
    assert [(path.name, path.read_text()) for path in out.parent.iterdir()] == [("prompts.jsonl", "mine")]
    skipped = call("build", "quickstart", "--out", out, *NO_VALIDATION, *data, "--set", "data.bad_rows=skip")
    assert skipped.exit_code == 0
    assert "1 of 10 rows cannot be used" in skipped.output
    assert f"{bad} row 10: missing key prompt" in skipped.output


def test_construction_is_refused_in_one_line_and_can_be_interrupted(tmp_path, monkeypatch):
    unknown = call("construct", "laptop", "--out", tmp_path / "out", "--stage", "polish").exception
    assert "no such stage; there are sources, select, " in str(unknown)
    absent = call("construct", "laptop", "--out", tmp_path / "out", "--stage", "verify").exception
    assert "has no section verify" in str(absent)

    def interrupted(*arguments, **keys):
        raise KeyboardInterrupt

    monkeypatch.setattr("golongrl.data.construct.run.construct", interrupted)
    assert call("construct", "laptop", "--out", tmp_path / "out").exit_code == 130


@pytest.mark.parametrize("name", ["rows.jsonl", "link.jsonl", "x.jsonl"])
def test_built_rows_are_not_written_over_the_ones_they_are_read_from(tmp_path, name):
    rows = tmp_path / ("x-validation.jsonl" if name == "x.jsonl" else "rows.jsonl")
    call("build", "quickstart", "--out", rows, "--set", "data.prompts=9", "--set", "data.validation_prompts=0")
    (tmp_path / "link.jsonl").symlink_to(rows)
    before = rows.read_bytes()
    overrides = [f"data.train={rows}", "data.corpus=null", "data.bad_rows=skip", "data.validation_prompts=0"]
    sets = [word for override in overrides for word in ("--set", override)]
    error = call("build", "quickstart", "--out", tmp_path / name, *sets).exception
    assert "this file is what is read" in str(error)
    assert rows.read_bytes() == before


@pytest.mark.parametrize("out", ["", ".", "..", "x", "x.txt", "/"])
def test_a_name_that_is_no_data_file_is_refused_before_anything_is_built(tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    assert "expected .parquet or .jsonl" in str(call("build", "quickstart", "--out", out).exception)
    assert not list(tmp_path.iterdir())
