"""A program called helm that is none, hangs, is killed, or prints what no helm prints: one line, and never success."""

import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import typer
from typer.testing import CliRunner

from golongrl.errors import GolongrlError
from golongrl.kubernetes import command, helm
from golongrl.kubernetes.deploy import helm as deploy_helm
from golongrl.kubernetes.deploy.helm import Deployment
from support.api_server import ApiServer
from support.helm import tool

# What the program does.
ODD = {
    "page": "echo '<html>'",
    "nothing": "exit 0",
    "null": "echo null",
    "list": "echo '[1]'",
    "other-object": "echo '{\"a\": 1}'",
    "other-types": 'echo \'{"info": 5, "manifest": 5, "kind": 1, "metadata": 2}\'',
    "cut": 'printf \'{"info": {"status": "depl\'',
    "bytes": "printf '\\377\\376\\000'",
    "bytes-and-failure": "printf '\\377\\376' >&2; exit 3",
    "killed": "kill -9 $$",
    "lines": "printf 'Error: first\\nsecond\\n' >&2; exit 1",
    "endless": "head -c 3000000 /dev/zero | tr '\\0' x >&2; exit 1",
}
CALLS = [
    (command.render, ["rayjob", "quickstart"]),
    (command.render, ["evaljob", "smoke"]),
    (command.deploy, ["install"]),
    (command.deploy, ["install", "--dry-run"]),
    (command.deploy, ["upgrade"]),
    (command.deploy, ["status"]),
]


@pytest.fixture
def helm_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "helm"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    return path


@pytest.fixture(params=["helm3", "helm4"])
def helm_on_path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "helm").symlink_to(tool(request.param))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


def said(app: typer.Typer, words: list[str]) -> str:
    done = CliRunner().invoke(app, words)
    assert isinstance(done.exception, GolongrlError), (done.exception, done.output)
    assert "\n" not in str(done.exception)
    assert done.output == ""
    return str(done.exception)


@pytest.mark.parametrize("does", ODD)
@pytest.mark.parametrize(("app", "words"), CALLS, ids=["-".join(words) for _, words in CALLS])
def test_an_odd_helm_is_one_line(helm_that: Path, app: typer.Typer, words: list[str], does: str) -> None:
    helm_that.write_text(f"#!/bin/sh\n{ODD[does]}\n")
    helm_that.chmod(0o755)
    line = said(app, words)
    assert "helm" in line
    assert len(line) < 3000


@pytest.mark.parametrize("text", ["no program", "#!/no/such/interpreter\n"])
@pytest.mark.parametrize(("app", "words"), CALLS, ids=["-".join(words) for _, words in CALLS])
def test_a_helm_that_cannot_be_run_is_named(helm_that: Path, app: typer.Typer, words: list[str], text: str) -> None:
    helm_that.write_text(text)
    helm_that.chmod(0o755)
    assert f"{helm_that} cannot be run" in said(app, words)


def test_a_helm_that_hangs_is_ended_with_its_children(helm_that: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    children = helm_that.with_name("children")
    helm_that.write_text(f"#!/bin/sh\nsleep 1000 & echo $! >{children}\nwait\n")
    helm_that.chmod(0o755)
    # Long enough to start the child.
    monkeypatch.setattr(helm, "_RENDER_S", 3)
    assert said(command.render, ["rayjob", "quickstart"]) == "helm template did not end within 3 s"
    with suppress(psutil.NoSuchProcess):
        child = psutil.Process(int(children.read_text()))
        # It is killed, and ends when it is its turn.
        while child.status() != psutil.STATUS_ZOMBIE:
            pass


def test_a_killed_helm_names_the_signal(helm_that: Path) -> None:
    helm_that.write_text("#!/bin/sh\nkill -9 $$\n")
    helm_that.chmod(0o755)
    assert said(command.deploy, ["status"]).endswith(": ended by signal 9")


@pytest.mark.parametrize(("name", "asks"), [("status", Deployment.status), ("upgrade", lambda it: it.preview({}))])
def test_a_helm_that_asks_a_busy_server_again_and_again_says_so_and_is_ended(
    name: str,
    asks: Callable[[Deployment], object],
    helm_that: Path,
    api: ApiServer,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """It asks after as long as the server says, which may be minutes, and says nothing."""
    api.refuse["version", "get"] = 429
    helm_that.write_text("#!/bin/sh\nsleep 1000\n")
    helm_that.chmod(0o755)
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(helm_that.with_name("kubeconfig"), "rl")))
    monkeypatch.setattr(helm, "_QUIET_S", 0.1)
    monkeypatch.setattr(deploy_helm, "_READ_S", 1)
    busy = (
        f"API server {api.url}, namespace rl: version: 429 too many requests; the API server has too much to "
        "do: try again later"
    )
    with pytest.raises(helm.HelmError) as error:
        asks(Deployment("demo", "rl"))
    assert str(error.value) == f"helm {name} did not end within 1 s: {busy}"
    assert capfd.readouterr().err == f"waiting for helm {name}, at most 1 s: {busy}\n"


@pytest.mark.parametrize("asks", [Deployment.status, Deployment.uninstall])
def test_ctrl_c_ends_helm_and_the_command(
    asks: Callable[[Deployment], object], helm_that: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helm, "_QUIET_S", 0.5)
    monkeypatch.setattr(deploy_helm, "_READ_S", 240)
    # It is asked while helm runs.
    monkeypatch.setattr(deploy_helm._Helm, "waits_for", lambda _: signal.raise_signal(signal.SIGINT))
    helm_that.write_text("#!/bin/sh\nexec sleep 240\n")
    helm_that.chmod(0o755)
    with pytest.raises(KeyboardInterrupt):
        asks(Deployment("demo", "rl", timeout="240s"))
    left = [child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE]
    assert [child for child in left if "sleep" in child.cmdline()] == []


@pytest.mark.usefixtures("helm_on_path")
def test_a_server_that_refuses_helms_first_call_is_named_with_its_words(api: ApiServer) -> None:
    """helm says `Kubernetes cluster unreachable: unknown`."""
    api.refuse["version", "get"] = 403
    with pytest.raises(helm.HelmError) as error:
        Deployment("demo", "rl").status()
    said = f"API server {api.url}, namespace rl: version: 403 too many requests"
    assert str(error.value) == f"helm, release demo in namespace rl: {said}"


@pytest.mark.parametrize(
    "page", ["<html><p>Sign in</p></html>", "<!DOCTYPE html>\n<p>Sign in</p></HTML>", "<html> cut"]
)
def test_a_proxys_page_is_not_shown(page: str) -> None:
    said = helm.reason(f'Error: an error on the server ("{page}") has prevented it'.encode())
    assert said.startswith('an error on the server ("<a page>')
    assert "Sign" not in said


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("Error: execution error at (golongrl/templates/common/checks.yaml:2:4): storage.size: 1", "storage.size: 1"),
        (
            'Error: template: golongrl/templates/redis/statefulset.yaml:5:51: executing "golongrl/templates/redis/'
            'statefulset.yaml" at <lookup "apps/v1" "StatefulSet" .Release.Namespace $name>: error calling lookup: '
            "statefulsets is forbidden",
            '<lookup "apps/v1" "StatefulSet" .Release.Namespace $name>: error calling lookup: '
            "statefulsets is forbidden",
        ),
    ],
)
def test_a_place_in_the_templates_is_left_out(words: str, line: str) -> None:
    assert helm.reason(words.encode()) == line
