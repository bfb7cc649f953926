"""`golongrl deploy` and `golongrl render`: values checked first, readable diffs, the real helm."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from golongrl.errors import GolongrlError, InputError
from golongrl.kubernetes import command
from golongrl.kubernetes.deploy.diff import changes
from golongrl.kubernetes.deploy.helm import DeployError, Deployment, user_values
from golongrl.kubernetes.helm import HelmError
from golongrl.kubernetes.names import check_names
from golongrl.kubernetes.rayjob.load import ValuesError
from golongrl.recipe import RecipeError, load, parse, read_yaml
from support.helm import CHART, Helm, tool


def config(name: str, value: str, kind: str = "ConfigMap") -> dict[str, Any]:
    return {"kind": kind, "metadata": {"name": name}, "data": {"a": "same", "key": value}}


def test_a_diff_says_what_is_added_changed_removed() -> None:
    old = [config("kept", "1"), config("changed", "1"), config("gone", "1")]
    new = [config("kept", "1"), config("changed", "2"), config("fresh", "1")]
    assert list(changes(old, new)) == [
        "~ ConfigMap/changed",
        "     data:",
        "       a: same",
        "    -  key: '1'",
        "    +  key: '2'",
        "     kind: ConfigMap",
        "     metadata:",
        "+ ConfigMap/fresh",
        "- ConfigMap/gone",
        "1 added, 1 changed, 1 removed, 3 objects in all",
    ]


def test_a_diff_never_shows_a_secret() -> None:
    found = list(changes([config("s", "hunter1", "Secret")], [config("s", "hunter2", "Secret")]))
    assert found == ["0 added, 0 changed, 0 removed, 1 objects in all"]
    assert "hunter" not in "".join(changes([], [config("s", "hunter2", "Secret")]))


def test_the_diff_of_two_real_renderings() -> None:
    helm = Helm(tool("helm4"))
    found = list(changes(helm.template(), helm.template({"reward": {"replicas": 3}})))
    assert [line for line in found if not line.startswith(" ")] == [
        "~ Deployment/demo-golongrl-reward",
        f"0 added, 1 changed, 0 removed, {len(helm.template().objects)} objects in all",
    ]
    assert "    +  replicas: 3" in found


def test_values_are_checked_before_helm_is_called(tmp_path: Path) -> None:
    path = tmp_path / "values.yaml"
    path.write_text("rollout: {replicas: 2}\nrecipe: {data: {corpus: null, train: /x}}\n")
    assert user_values([path], ["rollout.replicas=3", "recipe.learner.lr=1e-5"]) == {
        "rollout": {"replicas": 3},
        "recipe": {"data": {"corpus": None, "train": "/x"}, "learner": {"lr": 1e-5}},
    }
    with pytest.raises(ValuesError, match=r"unknown key rollout\.replicaz; did you mean rollout\.replicas\?"):
        user_values([], ["rollout.replicaz=3"])
    with pytest.raises(RecipeError, match=r"unknown key learner\.steps_"):
        user_values([], ["recipe.learner.steps_=3"])
    with pytest.raises(ValuesError, match=r"unknown key reward\.autoscalin; did you mean reward\.autoscaling\?"):
        user_values([], ["reward.autoscalin.enabled=true"])
    with pytest.raises(ValuesError, match=r"values: unknown key rollout\.engine\.tensorparalel; did you mean "):
        user_values([], ["rollout.engine.tensorparalel=2"])
    with pytest.raises(ValuesError, match="no-such"):
        user_values([tmp_path / "no-such"], [])


def test_an_unreachable_cluster_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The real helm through pyhelm3, against a port where nobody listens."""
    (tmp_path / "helm").symlink_to(tool("helm4"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    kubeconfig = {
        "apiVersion": "v1", "kind": "Config", "current-context": "x", "users": [],
        "clusters": [{"name": "x", "cluster": {"server": "http://127.0.0.1:9"}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": ""}}],
    }  # fmt: skip
    (tmp_path / "config").write_text(json.dumps(kubeconfig))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    for call in (lambda d: d.preview({}), lambda d: d.apply({}), lambda d: d.status(), lambda d: d.uninstall()):
        with pytest.raises(DeployError) as error:
            call(Deployment("demo", "rl", timeout="5s"))
        assert str(error.value).startswith("helm, release demo in namespace rl: ")
        assert "\n" not in str(error.value)


def test_a_missing_helm_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(HelmError, match="helm is not on PATH: install Helm"):
        Deployment("demo", "rl").preview({})
    error = CliRunner().invoke(command.render, ["rayjob", "quickstart"]).exception
    assert isinstance(error, HelmError)
    assert str(error).startswith("helm is not on PATH: install Helm 3.17 or newer")


@pytest.fixture(params=["helm3", "helm4"])
def helm_on_path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "helm").symlink_to(tool(request.param))
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")


@pytest.mark.usefixtures("helm_on_path")
@pytest.mark.parametrize("name", ["quickstart", "qwen3-4b-grpo"])
def test_render_prints_a_rayjob_with_its_recipe(name: str) -> None:
    done = CliRunner().invoke(command.render, ["rayjob", name, "--set", "learner.steps=7", "-n", "rl"])
    assert done.exit_code == 0, done.output
    config_map, job = yaml.safe_load_all(done.output)
    recipe = parse(read_yaml(config_map["data"]["recipe.yaml"]))
    assert (recipe.name, recipe.learner.steps) == (name, 7)
    assert recipe.learner.lr == load(name).learner.lr
    assert config_map["metadata"] | {"labels": 0} == {"name": job["metadata"]["name"], "namespace": "rl", "labels": 0}
    mounted = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["volumes"][0]
    assert mounted == {"name": "recipe", "configMap": {"name": config_map["metadata"]["name"]}}


@pytest.mark.usefixtures("helm_on_path")
@pytest.mark.parametrize(
    ("words", "install"),
    [
        (["quickstart"], "charts/golongrl --set"),
        (["quickstart", "-n", "rl"], "charts/golongrl -n rl --set"),
        (["smollm2-135m"], "charts/golongrl --set recipePreset=smollm2-135m --set"),
        (
            ["qwen3-4b-grpo", "-f", str(CHART / "values-rdma.yaml")],
            f"charts/golongrl -f charts/golongrl/values-qwen3-4b.yaml -f {CHART}/values-rdma.yaml "
            "--set recipePreset=qwen3-4b-grpo --set",
        ),
    ],
)
def test_render_says_how_its_release_is_installed(words: list[str], install: str) -> None:
    """With the same values: the release brings the pool, which the recipe's preset lays out."""
    done = CliRunner().invoke(command.render, ["rayjob", *words])
    assert f"helm install golongrl {install} learner.enabled=false\n" in done.output


@pytest.mark.usefixtures("helm_on_path")
def test_an_overlay_is_over_the_recipes_preset() -> None:
    """As for `deploy`: an overlay alone would leave the ranks without GPUs."""
    done = CliRunner().invoke(command.render, ["rayjob", "qwen3-4b-grpo", "-f", str(CHART / "values-rdma.yaml")])
    (_, job) = yaml.safe_load_all(done.output)
    (ranks,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = ranks["template"]["spec"]["containers"]
    assert (ranks["replicas"], container["resources"]["limits"]["rdma/hca"]) == (4, "1")


@pytest.mark.usefixtures("helm_on_path")
@pytest.mark.parametrize("text", ["\U0001f600", "a\U00020000b", "é\u2028\ufeff", "\u202e", "ａ"])
def test_every_character_reaches_helm(text: str, tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text(json.dumps({"learner": {"podAnnotations": {"a": text}}}, ensure_ascii=False))
    done = CliRunner().invoke(command.render, ["rayjob", "quickstart", "-f", str(tmp_path / "values.yaml")])
    assert done.exit_code == 0, done.exception
    (_, job) = yaml.safe_load_all(done.output)
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    assert head["metadata"]["annotations"]["a"] == text


@pytest.mark.parametrize(("app", "words"), [(command.render, ["rayjob", "quickstart"]), (command.deploy, ["install"])])
def test_half_of_a_character_is_named(app: typer.Typer, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text('learner: {podAnnotations: {a: "x\\uD800"}}')
    error = CliRunner().invoke(app, [*words, "-f", str(tmp_path / "values.yaml")]).exception
    assert isinstance(error, InputError)
    assert str(error).startswith("values: learner.podAnnotations.a: ")


@pytest.mark.usefixtures("helm_on_path")
@pytest.mark.parametrize("words", [["rayjob", "quickstart"], ["evaljob", "table"]])
def test_a_values_file_may_be_a_pipe(words: list[str]) -> None:
    """Read once: as `-f <(...)` gives it."""
    reading, writing = os.pipe()
    os.write(writing, b"learner: {backoffLimit: 9}\nevaluation: {backoffLimit: 9}\n")
    os.close(writing)
    try:
        done = CliRunner().invoke(command.render, [*words, "-f", f"/dev/fd/{reading}"])
    finally:
        os.close(reading)
    assert "backoffLimit: 9" in done.output


@pytest.mark.usefixtures("helm_on_path")
def test_a_recipe_that_is_no_mapping_is_named(tmp_path: Path) -> None:
    path = tmp_path / "values.yaml"
    path.write_text("recipe: [1]\n")
    for app, words in [*MAKES, (command.deploy, ["install", "--dry-run"])]:
        error = CliRunner().invoke(app, [*words, "-f", str(path)]).exception
        assert isinstance(error, ValuesError)
        assert "recipe: Input should be a valid dictionary" in str(error)


@pytest.mark.usefixtures("helm_on_path")
def test_render_refuses_what_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "values.yaml"
    path.write_text("learner: {workers: {replicas: 2, gpus: 8}}\n")
    done = CliRunner().invoke(command.render, ["rayjob", "quickstart", "-f", str(path)])
    assert isinstance(done.exception, GolongrlError)
    assert "are not the recipe's learner.ranks 1" in str(done.exception)


@pytest.mark.parametrize("text", ["", "- a", "a: ["])
def test_render_names_a_broken_recipe(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    done = CliRunner().invoke(command.render, ["rayjob", str(path)])
    assert isinstance(done.exception, RecipeError)
    assert str(path) in str(done.exception)


STATUS = typer.Typer()
STATUS.command()(command.status)
TAKES_NAMES = [
    (command.render, ["rayjob", "quickstart"]),
    (command.deploy, ["install", "quickstart"]),
    (command.deploy, ["upgrade"]),
    (command.deploy, ["status"]),
    (command.deploy, ["uninstall"]),
    (STATUS, []),
]


@pytest.mark.parametrize(("app", "words"), TAKES_NAMES)
@pytest.mark.parametrize(
    ("option", "word"),
    [
        ("--release", "A B"), ("--release", "a" * 54), ("--release", ""), ("--release", "-a"), ("--release", "ä"),
        ("--namespace", "x_"), ("--namespace", "a.b"), ("--namespace", "a" * 64), ("--namespace", "-n"),
    ],
)  # fmt: skip
def test_a_name_that_the_cluster_would_refuse_is_refused_first(
    app: typer.Typer, words: list[str], option: str, word: str
) -> None:
    given = ["--release", "demo"] if option == "--namespace" else []
    error = CliRunner().invoke(app, [*words, *given, f"{option}={word}"]).exception
    assert isinstance(error, InputError)
    assert str(error).startswith(f"{option} {word!r}: use lower-case letters")


MAKES = [
    (command.render, ["rayjob", "quickstart"]),
    (command.render, ["evaljob", "table"]),
    (command.deploy, ["install"]),
]


@pytest.mark.parametrize(("app", "words"), MAKES)
@pytest.mark.parametrize("release", ["a.b", "golongrl.v2", "1.0", "a..b", "a-.b", ".a", "a.", "a\n", "a_b", "A"])
def test_a_new_releases_name_has_no_dots(app: typer.Typer, words: list[str], release: str) -> None:
    """The chart writes '-' for them, so that two releases would share their objects."""
    error = CliRunner().invoke(app, [*words, f"--release={release}"]).exception
    assert isinstance(error, InputError)
    assert str(error).startswith(f"--release {release!r}: use lower-case letters, digits and '-', at most 53")


@pytest.mark.parametrize("release", ["a.b", "a" * 53, "0", "a-b"])
def test_a_release_that_helm_made_can_be_looked_at(release: str) -> None:
    check_names(release, "default")


@pytest.mark.parametrize("timeout", ["abc", "", "10", "-1m", "1 m", "10m x"])
def test_a_timeout_that_helm_would_refuse_is_refused_first(timeout: str) -> None:
    error = CliRunner().invoke(command.deploy, ["install", f"--timeout={timeout}"]).exception
    assert isinstance(error, InputError)
    assert str(error) == f"--timeout {timeout!r}: give a number with a unit, as 90s or 1h30m"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["install", "nope"], "recipe nope: no such file or packaged recipe"),
        (["install", "quickstart", "--set", "a"], "--set a: expected key.path=value"),
        (["install", "quickstart", "--set", "a=1"], "values: unknown key a"),
        (["install", "-f", "/no/such"], "values file /no/such: No such file or directory"),
        (["install", "-f", "/"], "values file /: is a folder, not a file"),
    ],
)
def test_bad_input_of_deploy_is_one_line(words: list[str], line: str) -> None:
    error = CliRunner().invoke(command.deploy, words).exception
    assert isinstance(error, InputError)
    assert str(error).startswith(line)
    assert "\n" not in str(error)


@pytest.mark.parametrize("words", [["rayjob"]])
def test_render_help_has_an_example(words: list[str]) -> None:
    assert "golongrl render" in " ".join(CliRunner().invoke(command.render, [*words, "--help"]).output.split())


@pytest.mark.parametrize("word", ["install", "upgrade", "status", "uninstall"])
def test_deploy_help_has_an_example(word: str) -> None:
    assert f"golongrl deploy {word}" in " ".join(CliRunner().invoke(command.deploy, [word, "--help"]).output.split())
