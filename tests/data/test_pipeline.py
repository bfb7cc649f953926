"""From recipe to prepared folders: what is kept, dropped, cut and held out."""

import os
import random
import re
import shutil
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from golongrl import files
from golongrl.data import DataError, Prepared, pipeline, prepare
from golongrl.data.builders import build
from golongrl.data.chat import Chat
from golongrl.data.corpus import PYTHON_REFERENCE, load_corpus
from golongrl.data.pipeline import absent
from golongrl.data.prepared import BATCH_ROWS, PreparedRow, open_splits, write_prepared
from golongrl.data.row_files import write_rows
from golongrl.errors import InputError
from golongrl.files.writing import STAGED
from golongrl.recipe import load
from golongrl.tasks import score

TASKS = ("T1", "T2", "T3", "T4", "T5", "T6", "T7", "T8", "T9")


@pytest.fixture(scope="module")
def rows():
    corpus = load_corpus(PYTHON_REFERENCE)
    return [build(task, corpus, random.Random(task), 90, "terse") for task in TASKS]


def _from_file(path, *overrides):
    return load("quickstart", ["data.corpus=null", f"data.train={path}", *overrides])


def test_the_quickstart_is_prepared_with_all_tasks_and_held_out_prompts(tmp_path, tiny_model):
    seen = []
    recipe = load("quickstart", ["data.prompts=90", "data.validation_prompts=18", "data.max_prompt_tokens=4000",
                                 "model.context_length=8000"])  # fmt: skip
    report = prepare(recipe, tmp_path, tiny_model, progress=lambda split, done: seen.append((split, done)))
    train, held = Prepared.open(tmp_path / "train"), Prepared.open(tmp_path / "validation")
    assert len(train) == report.train.rows == 90
    assert report.train.tasks == dict.fromkeys(TASKS, 10)
    assert len(held) == 18
    assert seen[-1] == ("validation", 18)
    assert int(train.lengths.max()) == report.train.longest
    chat = Chat.open(tiny_model)
    first = train.row(0)
    assert first.prompt_ids.dtype == np.int32
    assert chat.decode(first.prompt_ids, skip_special_tokens=False).endswith("<|im_start|>assistant\n")
    for index in range(len(train)):
        row = train.row(index)
        assert row.index == index
        assert train.tasks[index] == row.task_key
        outcome = score(row.data_source, "no thoughts", row.ground_truth, row.extra_info, mode="strict")
        assert (outcome.status, outcome.score, outcome.metric) == ("scored", 0.0, row.metric)


def test_the_same_again_is_kept_and_anything_else_made_anew(tmp_path, tiny_model):
    recipe = load("quickstart", ["data.prompts=9", "data.validation_prompts=0"])
    prepare(recipe, tmp_path, tiny_model)
    file = tmp_path / "train" / "rows.arrow"
    before = file.stat().st_mtime_ns
    again = prepare(recipe, tmp_path, tiny_model)
    assert file.stat().st_mtime_ns == before
    assert again.train.rows == 9
    other = prepare(recipe.model_copy(update={"seed": 99}), tmp_path, tiny_model)
    assert other.fingerprint != again.fingerprint
    assert file.stat().st_mtime_ns > before


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_dataset_file_keeps_the_tasks_asked_for(tmp_path, tiny_model, rows, suffix):
    path = tmp_path / f"data{suffix}"
    write_rows(rows, path)
    report = prepare(_from_file(path, "data.tasks=[T1, T5]"), tmp_path / "out", tiny_model)
    assert report.train.tasks == {"T1": 1, "T5": 1}
    assert report.train.other_tasks == 7
    assert report.validation is None


def test_overlong_prompts_are_dropped_cut_on_the_left_or_an_error(tmp_path, tiny_model, rows):
    path = tmp_path / "data.jsonl"
    write_rows(rows, path)
    chat = Chat.open(tiny_model)
    full = chat.encode([chat.render([m.model_dump() for m in row.prompt]) for row in rows])
    limit = sorted(map(len, full))[4]
    size = f"data.max_prompt_tokens={limit}"
    dropped = prepare(_from_file(path, size), tmp_path / "a", tiny_model).train
    assert (dropped.rows, dropped.overlong) == (
        sum(len(ids) <= limit for ids in full),
        sum(len(i) > limit for i in full),
    )
    cut = prepare(_from_file(path, size, "data.overlong=truncate_left"), tmp_path / "b", tiny_model).train
    assert (cut.rows, cut.truncated, cut.longest) == (9, dropped.overlong, limit)
    kept = Prepared.open(tmp_path / "b" / "train")
    for index, ids in enumerate(full):
        assert kept.row(index).prompt_ids.tolist() == ids[-limit:].tolist()
    with pytest.raises(DataError, match=rf"data\.jsonl row \d+: \d+ tokens, data\.max_prompt_tokens is {limit}"):
        prepare(_from_file(path, size, "data.overlong=error"), tmp_path / "c", tiny_model)
    with pytest.raises(DataError, match=r"no train row is left \(0 bad, 9 longer than data.max_prompt_tokens 1, 0 of"):
        prepare(_from_file(path, "data.max_prompt_tokens=1"), tmp_path / "d", tiny_model)
    assert not (tmp_path / "c").exists()
    assert not (tmp_path / "d").exists()


def test_an_unknown_task_names_file_and_row(tmp_path, tiny_model, rows):
    path = tmp_path / "data.jsonl"
    write_rows([rows[0], rows[1].model_copy(update={"data_source": "nowhere"})], path)
    with pytest.raises(DataError, match=r"data\.jsonl row 2: .*nowhere"):
        prepare(_from_file(path), tmp_path / "out", tiny_model)


def _row(index, length):
    ids = np.arange(length, dtype=np.int32) + index
    return PreparedRow(index, ids, "T1", "EM", "EM", "EM", "EM", {"doc_ids": ["ü"]}, {"reward_mode": "EM"}, "ability")


def test_any_row_of_a_prepared_folder_reads_back(tmp_path):
    rows = [_row(i, i % 7) for i in range(2 * BATCH_ROWS + 5)]
    assert write_prepared(rows, tmp_path / "x") == len(rows)
    back = Prepared.open(tmp_path / "x")
    for index in (0, BATCH_ROWS - 1, BATCH_ROWS, 2 * BATCH_ROWS, len(rows) - 1):
        row = back.row(index)
        assert row.prompt_ids.tolist() == rows[index].prompt_ids.tolist()
        assert (row.ground_truth, row.extra_info, row.index) == ({"doc_ids": ["ü"]}, {"reward_mode": "EM"}, index)
        assert not row.prompt_ids.flags.writeable
    assert back.lengths.tolist() == [i % 7 for i in range(len(rows))]
    for index in (-1, len(rows)):
        with pytest.raises(IndexError):
            back.row(index)


@pytest.mark.parametrize(
    "change",
    [{"task": "T2"}, {"ground_truth": {"doc_ids": []}}, {"extra_info": {}}, {"task_key": "F1"},
     {"prompt_ids": np.arange(6, dtype=np.int32)}, {"prompt_ids": np.arange(1, 8, dtype=np.int32)}],
)  # fmt: skip
def test_other_rows_have_another_digest(tmp_path, change):
    rows = [_row(i, 7) for i in range(BATCH_ROWS + 3)]
    write_prepared(rows, tmp_path / "a")
    write_prepared(rows, tmp_path / "again")
    write_prepared([*rows[:-2], replace(rows[-2], **change), rows[-1]], tmp_path / "changed")
    write_prepared(rows[::-1], tmp_path / "turned")
    digests = [Prepared.open(tmp_path / name).digest for name in ("a", "again", "changed", "turned")]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_a_folder_that_is_not_prepared_says_so(tmp_path):
    with pytest.raises(DataError, match=r"rows\.arrow"):
        Prepared.open(tmp_path)
    (tmp_path / "rows.arrow").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"rows\.arrow"):
        Prepared.open(tmp_path)


SMALL = ("data.prompts=9", "data.validation_prompts=3")


def kept(folder):
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("name", ["preparing/thesis.tex", "preparing", "train/mine.txt", ".lock/x"])
def test_a_users_folder_of_any_name_is_not_taken(tmp_path, tiny_model, name):
    mine = tmp_path / "out" / name
    mine.parent.mkdir(parents=True)
    mine.write_text("precious")
    before = kept(tmp_path)
    with pytest.raises(InputError):
        prepare(load("quickstart", SMALL), tmp_path / "out", tiny_model)
    assert kept(tmp_path) == before


def test_the_data_of_a_run_stay_as_they_are(tmp_path, tiny_model):
    """Its workers may start again at any time, and `--resume` reads them too."""
    recipe, out = load("quickstart", SMALL), tmp_path / "run" / "data"
    prepare(recipe, out, tiny_model)
    other = recipe.model_copy(update={"seed": 99})
    # A user's own folder, with a recipe in it.
    (tmp_path / "run" / "recipe.yaml").write_text("")
    prepare(other, out, tiny_model)
    (tmp_path / "run" / "run.json").write_text("{}")
    before = kept(tmp_path)
    (tmp_path / "link").symlink_to(out)
    for name in (out, tmp_path / "link"):
        with pytest.raises(DataError, match=r"holds the data that run run began with; choose another folder"):
            prepare(recipe, name, tiny_model)
        prepare(other, name, tiny_model)
    (tmp_path / "link").unlink()
    assert kept(tmp_path) == before


@pytest.mark.parametrize("name", ["train/mine.txt", "validation/sub/mine.txt"])
def test_what_a_user_put_beside_prepared_rows_is_not_deleted_with_them(tmp_path, tiny_model, name):
    prepare(load("quickstart", SMALL), tmp_path, tiny_model)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("precious")
    before = kept(tmp_path)
    prepare(load("quickstart", SMALL), tmp_path, tiny_model)
    for other in (["data.prompts=18"], ["data.prompts=9", "data.validation_prompts=0"]):
        folder = (tmp_path / name.partition("/")[0]).name
        with pytest.raises(
            DataError, match=rf"{folder} holds files that are not of prepared data \((mine|sub).*move them"
        ):
            prepare(load("quickstart", other), tmp_path, tiny_model)
        assert kept(tmp_path) == before


def _change_an_id(rows: Path) -> None:
    content = bytearray(rows.read_bytes())
    ids = Prepared.open(rows.parent).row(0).prompt_ids
    content[content.index(ids.tobytes()) + ids.nbytes // 2] ^= 1
    rows.write_bytes(content)


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: shutil.rmtree(path.parent),
        lambda path: write_prepared([_row(0, 3)], path.parent),
        _change_an_id,
    ],
    ids=["missing", "empty", "cut", "no folder", "other rows", "a bit of an id"],
)
@pytest.mark.parametrize("split", ["train", "validation"])
def test_damaged_rows_are_prepared_again(tmp_path, tiny_model, split, harm):
    recipe = load("quickstart", SMALL)
    prepare(recipe, tmp_path, tiny_model)
    before = kept(tmp_path)
    harm(tmp_path / split / "rows.arrow")
    prepare(recipe, tmp_path, tiny_model)
    assert kept(tmp_path) == before


def test_changed_bytes_of_prepared_rows_are_no_crash_and_no_traceback(tmp_path, tiny_model):
    """Arrow has no checksums: it ended the process at a wrong offset, and a text that is no UTF-8 was a traceback."""
    prepare(load("quickstart", SMALL), tmp_path, tiny_model)
    path = tmp_path / "train" / "rows.arrow"
    whole = path.read_bytes()
    rng, refused = random.Random(1), list[str]()
    for _ in range(150):
        harmed = bytearray(whole)
        at, count = rng.randrange(len(whole)), rng.choice([1, 8, 512])
        harmed[at : at + count] = rng.randbytes(len(harmed[at : at + count]))
        path.write_bytes(harmed)
        try:
            rows = Prepared.open(path.parent)
        except DataError as error:
            refused.append(str(error))
            continue
        assert len(rows.digest) > 0
        for index in range(len(rows)):
            rows.row(index)
    assert len(refused) > 30
    assert not [
        line for line in refused if not re.fullmatch(rf"prepared data {path}: .*; prepare the data again", line)
    ]


def test_data_without_held_out_rows_leave_none_of_older_ones(tmp_path, tiny_model):
    prepare(load("quickstart", SMALL), tmp_path, tiny_model)
    assert open_splits(tmp_path)[1] is not None
    prepare(load("quickstart", ["data.prompts=9", "data.validation_prompts=0"]), tmp_path, tiny_model)
    assert open_splits(tmp_path)[1] is None


def test_two_processes_do_not_prepare_in_one_folder(tmp_path, tiny_model):
    recipe = load("quickstart", SMALL)
    tries = []

    def another(*_):
        before = kept(tmp_path / "out")
        with pytest.raises(DataError, match=f"another process prepares data in this folder .pid {os.getpid()}"):
            prepare(recipe, tmp_path / "out", tiny_model)
        assert kept(tmp_path / "out") == before
        tries.append(1)

    prepare(recipe, tmp_path / "out", tiny_model, progress=another)
    assert tries
    # What is there is read without the lock.
    with files.lock(tmp_path / "out" / ".lock"):
        prepare(recipe, tmp_path / "out", tiny_model)


def test_a_refused_preparation_leaves_no_folder(tmp_path, tiny_model):
    with pytest.raises(DataError):
        prepare(_from_file(tmp_path / "absent.jsonl"), tmp_path / "deep" / "out", tiny_model)
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{}")
    with pytest.raises(DataError):
        prepare(_from_file(bad), tmp_path / "deep" / "out", tiny_model)
    assert list(tmp_path.iterdir()) == [bad]


@pytest.mark.parametrize("died_after", range(1, 8))
def test_a_preparation_killed_at_any_write_is_not_whole_and_is_made_again(
    tmp_path, tiny_model, monkeypatch, died_after
):
    recipe = load("quickstart", SMALL)
    out = tmp_path / "out"
    if died_after % 2:  # over older data
        prepare(load("quickstart", [*SMALL, "seed=8"]), out, tiny_model)
    pid = os.fork()
    if not pid:
        _die_after(died_after, prepare, recipe, out, tiny_model)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL, "there are fewer writes"
    said_whole = pipeline.is_whole(out) and pipeline._kept(out, pipeline._fingerprint(recipe, tiny_model)) is not None
    found = kept(out) if said_whole else None
    prepare(recipe, out, tiny_model)
    prepare(recipe, tmp_path / "fresh", tiny_model)
    whole = {name: content for name, content in kept(out).items() if not STAGED.fullmatch(name)}
    whole[".lock"] = kept(tmp_path / "fresh")[".lock"]
    assert whole == kept(tmp_path / "fresh")
    assert found in (None, kept(out))


@pytest.mark.parametrize("stopped_before", range(1, 8))
@pytest.mark.parametrize("again", [False, True])
def test_a_preparation_stopped_at_any_write_is_made_by_the_next_command(
    tmp_path, tiny_model, monkeypatch, stopped_before, again
):
    out, left = tmp_path / "out", [0]
    if again:  # over older data
        prepare(load("quickstart", [*SMALL, "seed=8"]), out, tiny_model)

    def stopping(real):
        def step(*args, **kwargs):
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        return step

    with monkeypatch.context() as patched, suppress(KeyboardInterrupt):
        left[0] = stopped_before
        for owner, name in ((Path, "replace"), (Path, "rename"), (shutil, "rmtree")):
            patched.setattr(owner, name, stopping(getattr(owner, name)))
        prepare(load("quickstart", SMALL), out, tiny_model)
    assert again or pipeline.is_whole(out) or not out.exists()
    prepare(load("quickstart", SMALL), out, tiny_model)
    assert pipeline.is_whole(out)


def _die_after(writes, work, *arguments):
    """Do the work in this process and kill it before one of its renames and deletions."""
    left = [writes]

    def counted(real):
        def step(*args, **kwargs):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return step

    Path.replace, Path.rename = counted(Path.replace), counted(Path.rename)
    shutil.rmtree = counted(shutil.rmtree)
    try:
        work(*arguments)
    finally:
        os._exit(0)


def test_a_file_whose_name_is_no_utf_8_changes_the_data_like_any_other(tmp_path, tiny_model):
    folder = tmp_path / "corpus"
    folder.mkdir()
    name = os.fsdecode(b"caf\xe9.txt")
    (folder / name).write_text("One sentence after another. " * 3000)
    recipe = load("quickstart", [f"data.corpus={folder}"])
    before = pipeline._fingerprint(recipe, tiny_model)
    (folder / name).write_text("One sentence. " * 3000)
    assert pipeline._fingerprint(recipe, tiny_model) != before


def test_a_check_of_a_recipe_notes_data_that_is_elsewhere(tmp_path):
    gone = load("quickstart", ["data.corpus=null", f"data.train={tmp_path / 'a.jsonl'}", "data.validation=b.parquet"])
    assert list(absent(gone)) == [
        f"data.train {tmp_path / 'a.jsonl'} is not on this machine; its rows were not checked",
        "data.validation b.parquet is not on this machine; its rows were not checked",
    ]
    corpus = load("quickstart", [f"data.corpus={tmp_path / 'texts'}"])
    assert list(absent(corpus)) == [
        f"data.corpus {tmp_path / 'texts'} is not on this machine; its text was not checked"
    ]
    assert list(absent(load("quickstart"))) == []
    (tmp_path / "texts").touch()
    with pytest.raises(DataError, match=r"corpus .*texts: not a folder"):
        list(absent(corpus))
    (tmp_path / "a.csv").touch()
    with pytest.raises(DataError, match=r"expected \.parquet or \.jsonl, got \.csv"):
        list(absent(load("quickstart", ["data.corpus=null", f"data.train={tmp_path / 'a.csv'}"])))
