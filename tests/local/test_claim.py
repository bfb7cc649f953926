"""Who may take a run's folder, and what a refused or failed start leaves."""

import os
from pathlib import Path

import pytest

from golongrl.errors import InputError
from golongrl.files import Place, PlaceState
from golongrl.local.claim import Claim, other_recipe, refusal, resumed_recipe
from golongrl.local.plan import RunFolder
from golongrl.recipe import RecipeError, dump, load

RECIPE = load("quickstart")


def content(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder: name -> bytes (None: a folder)."""
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


def make_run(folder: RunFolder) -> None:
    with Claim.take(folder, resume=False) as claim:
        claim.write_recipe(RECIPE)
        claim.begun()


def fail_to_start(folder: RunFolder, *, resume: bool = False, begun: bool = False) -> None:
    with Claim.take(folder, resume=resume) as claim:
        claim.write_recipe(RECIPE)
        claim.made.tree(folder.data)
        (folder.data / "train").mkdir(parents=True)
        if begun:
            claim.begun()
        raise InputError("a check found something")


@pytest.mark.parametrize("state", list(PlaceState))
@pytest.mark.parametrize("resume", [False, True])
def test_a_new_run_takes_a_free_place_and_a_resumed_one_its_own(state: PlaceState, resume: bool) -> None:
    place = Place(Path("out/mine"), state, ("notes.txt",) if state is PlaceState.FOREIGN else ())
    why = refusal(place, "mine", resume=resume)
    assert (why is None) is (state is PlaceState.OWN if resume else state in (PlaceState.MISSING, PlaceState.EMPTY))
    assert why is None or ("run mine" in why and "out" in why)


@pytest.mark.parametrize("there", [None, (), ("notes.txt",), ("sub/notes.txt",), (".hidden",)])
@pytest.mark.parametrize("resume", [False, True])
def test_a_failed_start_leaves_everything_as_it_was(
    tmp_path: Path, there: tuple[str, ...] | None, resume: bool
) -> None:
    mine = tmp_path / "deep" / "out" / "mine"
    for name in there or ():
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_text("precious")
    if there is not None:
        mine.mkdir(parents=True, exist_ok=True)
    before = content(tmp_path)
    with pytest.raises(InputError):
        fail_to_start(RunFolder(mine), resume=resume)
    assert content(tmp_path) == before


def test_a_run_that_began_stays_whatever_ends_it(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "mine")
    with pytest.raises(InputError):
        fail_to_start(folder, begun=True)
    assert resumed_recipe(folder, []) == RECIPE


def test_a_second_run_of_the_same_name_says_how_to_resume(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "mine")
    make_run(folder)
    with (
        pytest.raises(InputError, match=r"run mine: .*exists; continue it with --resume or choose another --name"),
        Claim.take(folder, resume=False),
    ):
        pass


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_another_process_has_is_not_touched(tmp_path: Path, resume: bool) -> None:
    folder = RunFolder(tmp_path / "mine")
    make_run(folder)
    with Claim.take(folder, resume=True):
        before = content(tmp_path)
        expected = rf"is running already \(pid {os.getpid()}\)" if resume else "exists"
        with pytest.raises(InputError, match=expected), Claim.take(folder, resume=resume):
            pass
        assert content(tmp_path) == before
    with Claim.take(folder, resume=True):
        pass


def test_a_new_run_that_is_still_preparing_cannot_be_taken(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "mine")
    with (
        Claim.take(folder, resume=False),
        pytest.raises(InputError, match="running already"),
        Claim.take(folder, resume=False),
    ):
        pass


def test_a_runs_folder_is_private(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "mine")
    make_run(folder)
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert folder.recipe.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("name", ["file/demo", "file", "link", "n" * 300, "/proc/golongrl/demo"])
def test_a_place_that_cannot_be_a_folder_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError) as error, Claim.take(RunFolder(tmp_path / name), resume=False):
        pass
    assert len(str(error.value).splitlines()) == 1


def test_a_link_to_an_empty_folder_is_taken_and_kept(tmp_path: Path) -> None:
    (tmp_path / "big-disk").mkdir()
    (tmp_path / "mine").symlink_to("big-disk")
    with pytest.raises(InputError):
        fail_to_start(RunFolder(tmp_path / "mine"))
    assert (tmp_path / "mine").is_symlink()
    assert content(tmp_path / "big-disk") == {}


@pytest.mark.parametrize("name", ["recipe.yaml", "run.json", "learner/checkpoints/global_step_1/learner.json"])
def test_a_pipe_in_the_place_of_a_file_holds_up_no_resume(tmp_path: Path, name: str) -> None:
    folder = RunFolder(tmp_path / "mine")
    make_run(folder)
    pipe = folder.path / name
    pipe.parent.mkdir(parents=True, exist_ok=True)
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    with pytest.raises(InputError, match=f"{name} is not a plain file"), Claim.take(folder, resume=True):
        pass
    assert pipe.is_fifo()


@pytest.mark.parametrize("name", ["weights", "logs", "engines", "tensorboard", "checkpoints"])
def test_a_file_in_the_place_of_a_folder_is_named_before_anything_starts(tmp_path: Path, name: str) -> None:
    folder = RunFolder(tmp_path / "mine")
    make_run(folder)
    for put in (Path.touch, lambda path: path.symlink_to("gone")):
        put(folder.path / name)
        with pytest.raises(InputError, match=f"run mine: .*{name} is no folder"), Claim.take(folder, resume=True):
            pass
        (folder.path / name).unlink()


@pytest.mark.parametrize("name", ["metrics.jsonl", "samples.jsonl", "timeline.jsonl"])
def test_a_folder_in_the_place_of_a_file_is_named_before_anything_starts(tmp_path: Path, name: str) -> None:
    folder = RunFolder(tmp_path / "mine")
    make_run(folder)
    (folder.path / name).mkdir()
    with pytest.raises(InputError, match=f"run mine: .*{name} is no file"), Claim.take(folder, resume=True):
        pass


def test_a_recipe_that_was_cut_behind_a_section_is_not_resumed_with_defaults(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "mine")
    make_run(folder)
    assert resumed_recipe(folder, ()) == RECIPE
    whole = folder.recipe.read_text()
    for key in ("rollout", "learner", "telemetry"):
        folder.recipe.write_text(whole[: whole.index(f"\n{key}:") + 1])
        with pytest.raises(RecipeError, match=r"recipe\.yaml is damaged: its end is missing"):
            resumed_recipe(folder, ())
    folder.recipe.write_text(dump(RECIPE))
    assert resumed_recipe(folder, ()) == RECIPE, "as earlier versions wrote it"


def test_a_run_that_lost_its_recipe_is_not_called_one_that_never_began(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "mine")
    make_run(folder)
    folder.recipe.unlink()
    with pytest.raises(InputError, match=r"has no recipe\.yaml, so the run never began"):
        resumed_recipe(folder, ())
    (folder.checkpoints / "global_step_5").mkdir(parents=True)
    with pytest.raises(
        RecipeError, match=r"recipe\.yaml is missing; put a copy of it back, or .*learner\.resume=.*/global_step_N"
    ):
        resumed_recipe(folder, ())


def test_a_resumed_run_keeps_its_recipe_but_for_the_learner(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "mine")
    with Claim.take(folder, resume=False) as claim:
        claim.write_recipe(load("quickstart", ["seed=7"]))
        claim.begun()
    before = content(tmp_path)
    resumed = resumed_recipe(folder, ["learner.steps=50"])
    assert (resumed.seed, resumed.learner.steps) == (7, 50)
    with pytest.raises(RecipeError, match=r"--set queue.\*: a resumed run can only change learner"):
        resumed_recipe(folder, ["queue.max_staleness=3"])
    with pytest.raises(RecipeError, match=r"recipe.yaml with --set learner.steps: learner.steps: Input should be a"):
        resumed_recipe(folder, ["learner.steps=many"])
    assert content(tmp_path) == before


def test_a_run_is_not_resumed_with_another_recipe(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "mine")
    with pytest.raises(RecipeError, match="run mine is of recipe quickstart, and qwen3-4b-grpo is qwen3-4b-grpo"):
        other_recipe("qwen3-4b-grpo", (), folder, RECIPE)


def test_a_recipe_that_was_edited_after_the_start_is_told_not_to_hold(tmp_path: Path) -> None:
    folder, file = RunFolder(tmp_path / "mine"), tmp_path / "mine.yaml"
    file.write_text(dump(load("quickstart", ["learner.lr=1e-4", "learner.steps=99"])))
    said = other_recipe(str(file), (), folder, RECIPE)
    assert said is not None
    assert f"in {file} -> in the run: learner.lr 0.0001 -> 0.0002" in said
    # What --set says holds, wherever it stands.
    assert other_recipe(str(file), ["learner.lr=3e-4"], folder, load("quickstart", ["learner.lr=3e-4"])) is None
    file.unlink()
    assert other_recipe(str(file), (), folder, RECIPE) is None
