"""Calls to an API server, and to none: every refusal, silence or broken kubeconfig is one line that names the thing."""

import asyncio
from pathlib import Path

import certifi
import pytest
from kubernetes.aio.config import incluster_config

from golongrl.kubernetes import kubeconfig
from golongrl.kubernetes.cluster import connect
from golongrl.kubernetes.cluster_errors import ClusterAccessError, ClusterError
from support.api_server import ApiServer
from support.releases import READY, look_at, pod, stored


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (403, r"API server http://127.0.0.1:\d+, namespace rl: list of pods: 403 pods is forbidden"),
        (401, r"list of pods: 401 pods is forbidden; log in again"),
        (500, r"list of pods: 500 "),
    ],
)
def test_a_refusal_is_one_line(api: ApiServer, code: int, line: str) -> None:
    api.refuse["pods", "list"] = code
    with pytest.raises(ClusterError, match=line) as refused:
        look_at()
    assert "\n" not in str(refused.value)


def test_a_command_that_fails_or_is_refused_is_one_line(api: ApiServer) -> None:
    async def run() -> None:
        async with connect() as calls:
            await calls.execute("w-0", "worker", ["golongrl", "status"])

    with pytest.raises(ClusterError, match="command in pod w-0, container worker: 500 "):
        asyncio.run(run())
    api.commands = lambda *_: (1, "", "one\nerror: no such run\n")
    with pytest.raises(ClusterError, match=r"^command in pod w-0, container worker: failed: error: no such run$"):
        asyncio.run(run())


def test_every_call_carries_the_users_token(api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command in a pod too, which goes over a websocket."""
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "mine", "rl", token="hidden")))
    api.commands = lambda *_: (0, "{}", "")
    api.put(stored(pod("w-0", **READY)))
    assert look_at()[1] == {}
    assert api.credentials == {"Bearer hidden"}


def test_a_service_account_is_used_where_no_kubeconfig_is_named(
    api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the operator's pod; the account's files name the namespace, the token and the authority."""
    for name, text in {"token": "pods", "namespace": "rl", "ca.crt": certifi.contents()}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.delenv("KUBECONFIG")
    monkeypatch.setattr(kubeconfig, "_SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    access = asyncio.run(kubeconfig.find_access())
    assert (access.namespace, access.configuration.host) == ("rl", "https://10.0.0.1:443")
    assert access.configuration.api_key["BearerToken"] == "bearer pods"
    (tmp_path / "token").write_text("")
    with pytest.raises(ClusterAccessError, match=r"the service account in .* cannot be used: Token file exists but"):
        asyncio.run(kubeconfig.find_access())


def test_a_server_that_is_not_there_is_one_line(api: ApiServer, tmp_path: Path) -> None:
    api.url = "http://127.0.0.1:9"
    api.kubeconfig(tmp_path / "kubeconfig", "rl")
    with pytest.raises(ClusterError, match=r"API server http://127.0.0.1:9.*no answer \(ClientConnectorError") as error:
        look_at()
    assert "\n" not in str(error.value)


# A login program that is not installed, as of a cloud's clusters.
PLUGIN = """
current-context: x
contexts: [{name: x, context: {cluster: x, user: x}}]
clusters: [{name: x, cluster: {server: "https://127.0.0.1:9"}}]
users:
- name: x
  user: {exec: {apiVersion: client.authentication.k8s.io/v1, command: no-such-login, args: []}}
"""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (None, "no such file, and no service account of a pod: set KUBECONFIG"),
        ("", "cannot be used"),
        ("a: [", "not valid YAML"),
        ("- a", "cannot be used"),
        ("just words", "cannot be used"),
        ("{clusters: 1, contexts: 2}", "cannot be used"),
        (PLUGIN, "cannot be used: its user's login failed: .*No such file or directory: 'no-such-login'"),
        ("current-context: gone\nclusters: []\ncontexts: []\nusers: []\n", "cannot be used"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_one_line(
    text: str | None, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(ClusterAccessError, match=line) as error:
        look_at()
    assert f"kubeconfig {path}" in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2


def test_a_context_that_is_not_there_is_named_with_those_that_are(api: ApiServer) -> None:
    with pytest.raises(ClusterAccessError, match="no context prod; it has: fake"):
        look_at(context="prod")
    api.put(stored(pod("w-0", **READY)))
    assert look_at(context="fake")[0].pods
