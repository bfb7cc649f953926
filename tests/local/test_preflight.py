"""Everything that can be wrong before a run starts, one line each."""

import os
import socket
from pathlib import Path

import pytest

from golongrl.errors import InputError
from golongrl.local import preflight
from golongrl.local.plan import Ports, RunFolder
from golongrl.recipe import RecipeError, load


def test_free_ports_are_all_different() -> None:
    ports = preflight.free_ports(3).named()
    assert len(set(ports.values())) == len(ports) == 8


def test_a_port_in_use_is_named_with_its_service() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"port {port} for reward: .*; choose another --base-port"):
            preflight.check_ports(Ports(preflight.free_ports(0).redis, port, (), ()))


def test_a_port_that_is_no_port_is_named() -> None:
    with pytest.raises(InputError, match="port 70000 for redis"):
        preflight.check_ports(Ports.from_base(70000, 1))


def test_an_outside_redis_that_is_not_there_is_named() -> None:
    with socket.socket() as held:  # bound, so that nobody else listens there
        held.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{held.getsockname()[1]}/0"
        with pytest.raises(InputError, match=f"--redis-url {url}: .*refused"):
            preflight.check_redis(url)


def test_a_missing_sglang_names_the_command_that_installs_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run `make sglang`"):
        preflight.check_sglang(tmp_path)


def test_a_second_run_of_the_same_name_says_so(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "mine")
    recipe = load("quickstart")
    assert preflight.new_run(folder, recipe) == recipe == load(str(folder.recipe))
    with pytest.raises(InputError, match=r"run mine: .*exists; go on with --resume or choose another --name"):
        preflight.new_run(folder, recipe)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=f"--out {tmp_path}/file: cannot be written: Not a directory"):
        preflight.new_run(RunFolder(tmp_path / "file" / "demo"), load("quickstart"))


def test_a_run_that_goes_on_elsewhere_is_locked_and_names_its_process(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with preflight.lock(folder), pytest.raises(InputError, match=rf"is running already \(pid {os.getpid()}\)"):
        preflight.lock(folder)
    preflight.lock(folder).close()


def test_a_resumed_run_keeps_its_recipe_but_for_the_learner(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "mine")
    with pytest.raises(InputError, match="--resume: there is no run mine"):
        preflight.resumed_run(folder, [])
    preflight.new_run(folder, load("quickstart", ["seed=7"]))
    resumed = preflight.resumed_run(folder, ["learner.steps=50"])
    assert (resumed.seed, resumed.learner.steps) == (7, 50)
    with pytest.raises(RecipeError, match=r"--set queue.\*: a resumed run can only change learner"):
        preflight.resumed_run(folder, ["queue.max_staleness=3"])
