"""learner.args arrive word by word: through the real shells and Ray's own quoting, whichever way KubeRay submits."""

import json
import subprocess
import sys
from pathlib import Path
from subprocess import list2cmdline

import pytest

from golongrl.learner.words import decoded
from support.helm import Helm, containers, pod_specs

# Each is one argument; a shell that reads it leaves the file `owned` behind, or other words.
ARGUMENTS = [
    "--port=9",
    "a b",
    "it's",
    "it's a b",
    'say "x"',
    "$(touch owned)",
    "$(touch owned) b",
    "`touch owned`",
    "; touch owned",
    ";touch owned;",
    "&& touch owned",
    "| tee owned",
    "$HOME",
    "$HOME b",
    "back\\slash",
    'back\\"quote',
    "ends in \\",
    "*",
    "~",
    "#no",
    "!!",
    "{a,b}",
    "<owned",
    "",
    " ",
    "%24",
    "+",
    "ä ö",
    "$(POD_IP)",
    "$$",
]
EXISTING = {"clusterSelector": "team"}


@pytest.fixture
def words(tmp_path: Path) -> Path:
    """A folder with a `golongrl` that writes down its arguments when it is the learner."""
    path = tmp_path / "bin" / "golongrl"
    path.parent.mkdir()
    path.write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        f"if sys.argv[1] == 'learner': open({str(tmp_path / 'argv')!r}, 'w').write(json.dumps(sys.argv[1:]))\n"
    )
    path.chmod(0o755)
    return tmp_path


def run(folder: Path, *command: str) -> None:
    environment = {"PATH": f"{folder}/bin:/usr/bin:/bin", "HOME": "/nowhere"}
    subprocess.run(command, cwd=folder, env=environment, check=True, timeout=60)


def arrived(folder: Path) -> list[str]:
    assert not (folder / "owned").exists(), "a shell ran an argument"
    return [decoded(word) for word in json.loads((folder / "argv").read_text())]


def submitted(folder: Path, entrypoint: str) -> str:
    """What Ray's head is given in K8sJobMode: bash in KubeRay's submitter, then `ray job submit`."""
    catch = folder / "bin" / "ray"
    catch.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    catch.chmod(0o755)
    done = subprocess.run(
        ["/bin/bash", "-ce", "--", f"ray {entrypoint} ;"], cwd=folder, capture_output=True, text=True, check=True,
        env={"PATH": f"{folder}/bin:/usr/bin:/bin"}, timeout=60,
    )  # fmt: skip
    return list2cmdline(json.loads(done.stdout))


@pytest.mark.parametrize("learner", [{}, EXISTING], ids=["own-cluster", "existing-cluster"])
@pytest.mark.parametrize("mode", ["K8sJobMode", "HTTPMode"])
def test_every_argument_reaches_the_learner_as_it_is(
    helm: Helm, learner: dict[str, str], mode: str, words: Path
) -> None:
    values = {"learner": {**learner, "submissionMode": mode, "args": ARGUMENTS}}
    entrypoint = helm.template(values).one("RayJob")["spec"]["entrypoint"]
    run(words, "/bin/sh", "-c", submitted(words, entrypoint) if mode == "K8sJobMode" else entrypoint)
    assert arrived(words)[-len(ARGUMENTS) :] == ARGUMENTS
    assert arrived(words)[:3] == ["learner", "--recipe", "/etc/golongrl/recipe.yaml"]


def test_a_plain_job_needs_no_shell(helm: Helm, words: Path) -> None:
    objects = helm.template({"learner": {"mode": "job", "args": ARGUMENTS}})
    (container,) = objects.one("Job")["spec"]["template"]["spec"]["containers"]
    # Kubernetes reads $(NAME) as a variable and $$ as a dollar sign.
    assert all("$" not in word.replace("$$", "") for word in container["command"])
    run(words, *(word.replace("$$", "$") for word in container["command"]))
    assert arrived(words)[-len(ARGUMENTS) :] == ARGUMENTS


def test_arguments_of_the_other_components_are_no_variables_to_kubernetes(helm: Helm) -> None:
    given = [word for word in ARGUMENTS if word]
    engine = {"args": given}
    objects = helm.template(
        {
            "reward": {"args": given},
            "rollout": {"worker": {"args": given}, "engine": engine},
            "evaluation": {"enabled": True, "args": given},
            "construction": {
                "enabled": True,
                "passrate": {"enabled": True, "small": {"engine": engine}, "worker": {"args": given}},
            },
        }
    )
    found = []
    for _, _, spec in pod_specs(objects):
        for container in containers(spec):
            last = (container.get("args") or container.get("command", []))[-len(given) :]
            plain = all("$" not in word.replace("$$", "") for word in last)
            if plain and [word.replace("$$", "$") for word in last] == given:
                found.append(container["name"])
    assert sorted(found) == [
        "engine", "engine", "evaluation", "reward", "worker", "worker", "worker",
    ]  # fmt: skip


@pytest.mark.parametrize("word", ["two\nlines", "tab\t", "nul\x00"])
def test_control_characters_are_refused_with_their_path(helm: Helm, word: str) -> None:
    assert "args" in helm.refusal({"learner": {"args": [word]}})


def test_the_command_decodes_what_the_chart_encodes() -> None:
    command = [sys.executable, "-c", "from golongrl.cli import main; main()"]
    command += ["learner", "--encoded=--recipe", "--encoded=a%24b", "--run=x", "--redis-url=x"]
    command += [f"--{option}=x" for option in ("data", "weights", "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "recipe a$b: no such file" in done.stderr
